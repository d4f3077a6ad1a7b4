// Types of PTX and the 64-bit registers that hold their values: integers zero-extended, floats by their bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>

namespace ptx {

enum class Type : uint8_t {
  kNone,
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kBF16,
  kF16x2,
  kBF16x2,
  kF32,
  kF64
};

Type type_named(std::string_view name);  // "u32"; kNone where it is none
int bytes_of(Type type);

inline bool is_signed(Type type) { return type >= Type::kS8 && type <= Type::kS64; }
inline bool is_wide_float(Type type) { return type == Type::kF32 || type == Type::kF64; }

template <typename To, typename From>
To bit_copy(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T>
T decode(uint64_t bits) {
  if constexpr (std::is_same_v<T, float>) return bit_copy<float>(static_cast<uint32_t>(bits));
  if constexpr (std::is_same_v<T, double>) return bit_copy<double>(bits);
  if constexpr (std::is_integral_v<T>) return static_cast<T>(bits);
}

// NaN results are canonical in PTX.
template <typename T>
uint64_t encode(T value) {
  if constexpr (std::is_same_v<T, float>) return std::isnan(value) ? 0x7FFFFFFFu : bit_copy<uint32_t>(value);
  if constexpr (std::is_same_v<T, double>) return std::isnan(value) ? 0x7FFFFFFFFFFFFFFFu : bit_copy<uint64_t>(value);
  if constexpr (std::is_same_v<T, bool>) return value;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) return static_cast<std::make_unsigned_t<T>>(value);
}

inline uint64_t zero_extend(uint64_t bits, int bytes) {
  return bytes >= 8 ? bits : bits & ((uint64_t{1} << (8 * bytes)) - 1);
}

inline int64_t sign_extend(uint64_t bits, int bytes) {
  const int unused = 64 - 8 * bytes;
  return static_cast<int64_t>(bits << unused) >> unused;
}

}  // namespace ptx
