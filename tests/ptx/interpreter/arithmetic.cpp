// Arithmetic, comparisons and selection. Compiled with -fwrapv: integers wrap around.
#include <algorithm>
#include <bit>

#include "handlers.h"

namespace ptx {
namespace {

struct Add {
  template <typename T>
  static T apply(T a, T b) {
    return static_cast<T>(a + b);
  }
};

struct Subtract {
  template <typename T>
  static T apply(T a, T b) {
    return static_cast<T>(a - b);
  }
};

struct Multiply {
  template <typename T>
  static T apply(T a, T b) {
    return static_cast<T>(a * b);
  }
};

struct MultiplyHigh {
  template <typename T>
  static T apply(T a, T b) {
    return static_cast<T>(static_cast<__int128>(a) * static_cast<__int128>(b) >> (8 * sizeof(T)));
  }
};

struct Divide {
  template <typename T>
  static T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) fail("division by zero");
      if (std::is_signed_v<T> && b == static_cast<T>(-1)) return static_cast<T>(-a);
    }
    return static_cast<T>(a / b);
  }
};

struct Remainder {
  template <typename T>
  static T apply(T a, T b) {
    if (b == 0) fail("division by zero");
    return std::is_signed_v<T> && b == static_cast<T>(-1) ? T{0} : static_cast<T>(a % b);
  }
};

// Of a NaN and a number, the number; -0 is less than 0.
struct Minimum {
  template <typename T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
      if (a == b) return std::signbit(a) ? a : b;
    }
    return std::min(a, b);
  }
};

struct Maximum {
  template <typename T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
      if (a == b) return std::signbit(a) ? b : a;
    }
    return std::max(a, b);
  }
};

struct MultiplyAdd {
  template <typename T>
  static T apply(T a, T b, T c) {
    return static_cast<T>(a * b + c);
  }
};

struct FusedMultiplyAdd {
  template <typename T>
  static T apply(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};

struct Absolute {
  template <typename T>
  static T apply(T a) {
    if constexpr (std::is_floating_point_v<T>)
      return std::fabs(a);
    else
      return static_cast<T>(a < 0 ? -a : a);
  }
};

struct Negate {
  template <typename T>
  static T apply(T a) {
    return static_cast<T>(-a);
  }
};

struct SquareRoot {
  template <typename T>
  static T apply(T a) {
    return std::sqrt(a);
  }
};

struct Reciprocal {
  template <typename T>
  static T apply(T a) {
    return T{1} / a;
  }
};

// The hardware returns the upper half alone; libdevice refines it.
struct ReciprocalStart {
  static double apply(double a) { return bit_copy<double>(bit_copy<uint64_t>(1.0 / a) & ~uint64_t{0xFFFFFFFF}); }
};

// The hardware's approximations, which are within a few units of the last place, are rounded correctly here. `.ftz`
// takes subnormal numbers for zeros.
template <double (*kFunction)(double), bool kFlush>
struct Approximate {
  static float flush(float a) { return kFlush && std::fpclassify(a) == FP_SUBNORMAL ? std::copysign(0.0f, a) : a; }
  static float apply(float a) { return flush(static_cast<float>(kFunction(flush(a)))); }
};
double reciprocal(double a) { return 1.0 / a; }
double reciprocal_root(double a) { return 1.0 / std::sqrt(a); }
double power_of_two(double a) { return std::exp2(a); }
double logarithm(double a) { return std::log2(a); }
double root(double a) { return std::sqrt(a); }
double tangent(double a) { return std::tanh(a); }
double sine(double a) { return std::sin(a); }
double cosine(double a) { return std::cos(a); }

template <double (*kFunction)(double)>
Handler approximate(Mnemonic& name) {
  if (name.take("ftz")) return name.take("f32") ? unary<Approximate<kFunction, true>, float> : nullptr;
  return name.take("f32") ? unary<Approximate<kFunction, false>, float> : nullptr;
}

Handler find_approximate(Mnemonic& name) {
  const std::string& base = name.base;
  if (base == "rcp" && name.take("f64")) return name.take("ftz") ? unary<ReciprocalStart, double> : nullptr;
  if (base == "rcp") return approximate<reciprocal>(name);
  if (base == "rsqrt") return approximate<reciprocal_root>(name);
  if (base == "ex2") return approximate<power_of_two>(name);
  if (base == "lg2") return approximate<logarithm>(name);
  if (base == "sqrt") return approximate<root>(name);
  if (base == "tanh") return approximate<tangent>(name);
  if (base == "sin") return approximate<sine>(name);
  if (base == "cos") return approximate<cosine>(name);
  return nullptr;
}

template <typename T, typename Wide>
void multiply_wide(Thread& thread, const Instruction& in) {
  write<Wide>(thread, in, static_cast<Wide>(read<T>(thread, in, 1)) * static_cast<Wide>(read<T>(thread, in, 2)));
}

template <typename T, typename Wide>
void multiply_add_wide(Thread& thread, const Instruction& in) {
  const Wide product = static_cast<Wide>(read<T>(thread, in, 1)) * static_cast<Wide>(read<T>(thread, in, 2));
  write<Wide>(thread, in, product + read<Wide>(thread, in, 3));
}

Handler find_multiplication(Mnemonic& name, bool add) {
  const bool wide = name.take("wide"), high = name.take("hi");
  name.take("lo");
  name.take("rn");
  const Type type = name.take_type();
  if (wide) {
    if (type == Type::kU16) return add ? multiply_add_wide<uint16_t, uint32_t> : multiply_wide<uint16_t, uint32_t>;
    if (type == Type::kS16) return add ? multiply_add_wide<int16_t, int32_t> : multiply_wide<int16_t, int32_t>;
    if (type == Type::kU32) return add ? multiply_add_wide<uint32_t, uint64_t> : multiply_wide<uint32_t, uint64_t>;
    if (type == Type::kS32) return add ? multiply_add_wide<int32_t, int64_t> : multiply_wide<int32_t, int64_t>;
    return nullptr;
  }
  if (high) {
    if (add) return nullptr;
    return for_integer(type, [](auto t) -> Handler { return binary<MultiplyHigh, decltype(t)>; });
  }
  if (add) return for_integer(type, [](auto t) -> Handler { return ternary<MultiplyAdd, decltype(t)>; });
  return for_number(type, [](auto t) -> Handler { return binary<Multiply, decltype(t)>; });
}

// The words of setp: what is compared, whether NaN makes it true.
enum Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kEqu, kNeu, kLtu, kLeu, kGtu, kGeu, kNum, kNan };

template <typename T, Comparison kComparison>
bool holds(T a, T b) {
  const bool nan = a != a || b != b;
  if constexpr (kComparison == kNum) return !nan;
  if constexpr (kComparison == kNan) return nan;
  if constexpr (kComparison >= kEqu && kComparison <= kGeu) {
    if (nan) return true;
  }
  switch (kComparison) {
    case kEq:
    case kEqu:
      return a == b;
    case kNe:
      return !nan && a != b;
    case kNeu:
      return a != b;
    case kLt:
    case kLtu:
      return a < b;
    case kLe:
    case kLeu:
      return a <= b;
    case kGt:
    case kGtu:
      return a > b;
    default:
      return a >= b;
  }
}

// variant: with what the result is joined to operand 3. 0: nothing, 1: and, 2: or, 3: xor.
template <typename T, Comparison kComparison>
void compare(Thread& thread, const Instruction& in) {
  bool result = holds<T, kComparison>(read<T>(thread, in, 1), read<T>(thread, in, 2));
  if (in.variant == 1) result = result && predicate(thread, in, 3);
  if (in.variant == 2) result = result || predicate(thread, in, 3);
  if (in.variant == 3) result = result != predicate(thread, in, 3);
  write<bool>(thread, in, result);
}

template <Comparison kComparison>
Handler compare_as(Type type) {
  return for_number(type, [](auto t) -> Handler { return compare<decltype(t), kComparison>; });
}

Handler find_comparison(Mnemonic& name, Instruction& instruction) {
  instruction.variant = name.take("and") ? 1 : name.take("or") ? 2 : name.take("xor") ? 3 : 0;
  const Type type = name.take_type();
  if (name.take("eq")) return compare_as<kEq>(type);
  if (name.take("ne")) return compare_as<kNe>(type);
  if (name.take("lt") || name.take("lo")) return compare_as<kLt>(type);
  if (name.take("le") || name.take("ls")) return compare_as<kLe>(type);
  if (name.take("gt") || name.take("hi")) return compare_as<kGt>(type);
  if (name.take("ge") || name.take("hs")) return compare_as<kGe>(type);
  if (!is_wide_float(type)) return nullptr;
  if (name.take("equ")) return compare_as<kEqu>(type);
  if (name.take("neu")) return compare_as<kNeu>(type);
  if (name.take("ltu")) return compare_as<kLtu>(type);
  if (name.take("leu")) return compare_as<kLeu>(type);
  if (name.take("gtu")) return compare_as<kGtu>(type);
  if (name.take("geu")) return compare_as<kGeu>(type);
  if (name.take("num")) return compare_as<kNum>(type);
  if (name.take("nan")) return compare_as<kNan>(type);
  return nullptr;
}

void choose(Thread& thread, const Instruction& in) {
  set(thread, in, 0, operand(thread, in, predicate(thread, in, 3) ? 1 : 2));
}

struct CopySign {
  template <typename T>
  static T apply(T sign, T magnitude) {
    return std::copysign(magnitude, sign);
  }
};

}  // namespace

Handler find_arithmetic(Mnemonic& name, Instruction& instruction) {
  const std::string& base = name.base;
  if (base == "setp") return find_comparison(name, instruction);
  if (base == "mul" || base == "mad") return find_multiplication(name, base == "mad");
  if (name.take("approx")) return find_approximate(name);
  const bool rounds = name.take("rn");
  if (base == "cvt" || base == "ld" || base == "st") return nullptr;
  if (base == "selp") return name.take_type() == Type::kNone ? nullptr : choose;
  if (base == "fma" && rounds) {
    return for_float(name.take_type(), [](auto t) -> Handler { return ternary<FusedMultiplyAdd, decltype(t)>; });
  }
  const auto number = [&name](auto function) {
    return for_number(name.take_type(), [](auto t) -> Handler { return binary<decltype(function), decltype(t)>; });
  };
  if (base == "add") return number(Add());
  if (base == "sub") return number(Subtract());
  if (base == "min") return number(Minimum());
  if (base == "max") return number(Maximum());
  if (base == "div") return number(Divide());
  if (base == "rem") {
    return for_integer(name.take_type(), [](auto t) -> Handler { return binary<Remainder, decltype(t)>; });
  }
  if (base == "neg") {
    return for_number(name.take_type(), [](auto t) -> Handler { return unary<Negate, decltype(t)>; });
  }
  if (base == "abs") {
    return for_number(name.take_type(), [](auto t) -> Handler { return unary<Absolute, decltype(t)>; });
  }
  if (base == "sqrt" && rounds) {
    return for_float(name.take_type(), [](auto t) -> Handler { return unary<SquareRoot, decltype(t)>; });
  }
  if (base == "rcp" && rounds) {
    return for_float(name.take_type(), [](auto t) -> Handler { return unary<Reciprocal, decltype(t)>; });
  }
  if (base == "copysign") {
    return for_float(name.take_type(), [](auto t) -> Handler { return binary<CopySign, decltype(t)>; });
  }
  return nullptr;
}

}  // namespace ptx
