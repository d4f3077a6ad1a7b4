#include "statement.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "machine.h"

namespace ptx {
namespace {

// At commas outside of braces and brackets.
std::vector<std::string> split_operands(const std::string& text) {
  std::vector<std::string> parts;
  int depth = 0;
  std::string part;
  for (const char c : text) {
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (c == ',' && depth == 0) {
      parts.push_back(trim(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!trim(part).empty()) parts.push_back(trim(part));
  return parts;
}

std::optional<int> special_named(const std::string& name) {
  static const std::map<std::string, Special> kNames = {
      {"%tid.x", kTidX},          {"%tid.y", kTidY},          {"%tid.z", kTidZ},          {"%ntid.x", kNtidX},
      {"%ntid.y", kNtidY},        {"%ntid.z", kNtidZ},        {"%ctaid.x", kCtaidX},      {"%ctaid.y", kCtaidY},
      {"%ctaid.z", kCtaidZ},      {"%nctaid.x", kNctaidX},    {"%nctaid.y", kNctaidY},    {"%nctaid.z", kNctaidZ},
      {"%laneid", kLaneId},       {"%warpid", kWarpId},       {"%lanemask_lt", kLanesLt}, {"%lanemask_le", kLanesLe},
      {"%lanemask_gt", kLanesGt}, {"%lanemask_ge", kLanesGe}, {"%lanemask_eq", kLanesEq}, {"_", kSink}};
  const auto found = kNames.find(name);
  return found == kNames.end() ? std::nullopt : std::optional<int>(found->second);
}

// 0f3F800000 and 0d3FF0000000000000 are floats by their bits.
std::optional<uint64_t> parse_number(const std::string& text) {
  if (text.size() == 10 && (text.compare(0, 2, "0f") == 0 || text.compare(0, 2, "0F") == 0)) {
    return std::stoull(text.substr(2), nullptr, 16);
  }
  if (text.size() == 18 && (text.compare(0, 2, "0d") == 0 || text.compare(0, 2, "0D") == 0)) {
    return std::stoull(text.substr(2), nullptr, 16);
  }
  if (text[0] == '-') return static_cast<uint64_t>(std::stoll(text, nullptr, 0));
  if (std::isdigit(static_cast<unsigned char>(text[0]))) return std::stoull(text, nullptr, 0);
  return std::nullopt;
}

[[noreturn]] void unknown(const std::string& text) {
  fail("the interpreter does not know this instruction: %s", text.c_str());
}

// An instruction of a kind that nobody has met yet stops the run when it is executed, not when it is loaded.
void run_unknown(Thread& thread, const Instruction&) {
  unknown(thread.block->entry->texts[static_cast<size_t>(thread.pc) - 1]);
}

Handler find_handler(Mnemonic& name, Instruction& instruction) {
  const Mnemonic fresh = name;
  for (const auto find : {find_arithmetic, find_bitwise, find_conversion, find_memory, find_control}) {
    name = fresh;
    if (const Handler handler = find(name, instruction)) return name.empty() ? handler : run_unknown;
  }
  return run_unknown;
}

}  // namespace

std::string trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

int bytes_of(Type type) {
  switch (type) {
    case Type::kNone:
      return 0;
    case Type::kPred:
    case Type::kB8:
    case Type::kU8:
    case Type::kS8:
      return 1;
    case Type::kB16:
    case Type::kU16:
    case Type::kS16:
    case Type::kF16:
    case Type::kBF16:
      return 2;
    case Type::kB64:
    case Type::kU64:
    case Type::kS64:
    case Type::kF64:
      return 8;
    default:
      return 4;
  }
}

Type type_named(std::string_view name) {
  static const std::map<std::string_view, Type> kTypes = {
      {"pred", Type::kPred}, {"b8", Type::kB8},   {"b16", Type::kB16},      {"b32", Type::kB32},
      {"b64", Type::kB64},   {"u8", Type::kU8},   {"u16", Type::kU16},      {"u32", Type::kU32},
      {"u64", Type::kU64},   {"s8", Type::kS8},   {"s16", Type::kS16},      {"s32", Type::kS32},
      {"s64", Type::kS64},   {"f16", Type::kF16}, {"bf16", Type::kBF16},    {"f16x2", Type::kF16x2},
      {"f32", Type::kF32},   {"f64", Type::kF64}, {"bf16x2", Type::kBF16x2}};
  const auto found = kTypes.find(name);
  return found == kTypes.end() ? Type::kNone : found->second;
}

Mnemonic::Mnemonic(const std::string& text) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t dot = std::min(text.find('.', begin), text.size());
    const std::string word = text.substr(begin, dot - begin);
    if (begin == 0) {
      base = word;
    } else if (word.rfind("L1::", 0) != 0 && word.rfind("L2::", 0) != 0) {  // hints for the caches
      words_.push_back(word);
    }
    begin = dot + 1;
  }
}

bool Mnemonic::take(std::string_view word) {
  const auto found = std::find(words_.begin(), words_.end(), word);
  if (found == words_.end()) return false;
  words_.erase(found);
  return true;
}

Type Mnemonic::take_type() {
  for (auto word = words_.begin(); word != words_.end(); ++word) {
    const Type type = type_named(*word);
    if (type == Type::kNone) continue;
    words_.erase(word);
    return type;
  }
  return Type::kNone;
}

int Statements::find_register(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return found->second;
  }
  return special_named(name).value_or(-1);
}

int32_t Statements::constant(uint64_t value) {
  entry_->constants.push_back(value);
  return ~static_cast<int32_t>(entry_->constants.size() - 1);
}

void Statements::declare_registers(const std::string& statement) {
  const std::string rest = trim(statement.substr(4));
  for (const std::string& name : split_operands(rest.substr(rest.find_first_of(" \t")))) {
    const size_t bracket = name.find('<');
    if (bracket == std::string::npos) {
      scopes_.back()[name] = entry_->registers++;
      continue;
    }
    for (int i = 0, count = std::stoi(name.substr(bracket + 1)); i < count; ++i) {
      scopes_.back()[name.substr(0, bracket) + std::to_string(i)] = entry_->registers++;
    }
  }
}

void Statements::define_symbol(const std::string& name, int64_t value) { symbols_[name] = value; }

void Statements::define_label(const std::string& name) {
  labels_[name] = static_cast<int>(entry_->code.size());
  last_label_ = name;
}

void Statements::define_jump_table(const std::string& labels) {
  jump_tables_[last_label_] = static_cast<int>(jump_table_labels_.size());
  jump_table_labels_.push_back(split_operands(labels));
}

void Statements::add_address(Instruction& instruction, std::string text, int number) {
  const size_t plus = text.find('+', 1);
  if (plus != std::string::npos) {
    if (number < 2) instruction.offsets[static_cast<size_t>(number)] = std::stoll(text.substr(plus + 1), nullptr, 0);
    text = trim(text.substr(0, plus));
  }
  add_value(instruction, text);
}

void Statements::add_value(Instruction& instruction, const std::string& text) {
  if (instruction.count >= static_cast<int>(instruction.operands.size())) {
    fail("line %d: more operands than the interpreter has room for", line_);
  }
  int32_t& operand = instruction.operands[static_cast<size_t>(instruction.count)];
  if (const int found = find_register(text); found >= 0) {
    operand = found;
  } else if (const auto number = parse_number(text)) {
    operand = constant(*number);
  } else {  // a label, or a variable, which may be defined later
    operand = constant(0);
    unresolved_.push_back({entry_->code.size(), instruction.count, text, false});
  }
  ++instruction.count;
}

void Statements::add_operand(Instruction& instruction, const std::string& text, bool with_predicate, int& addresses) {
  if (text[0] == '!') {
    instruction.negated |= static_cast<uint16_t>(1u << instruction.count);
    add_value(instruction, trim(text.substr(1)));
  } else if (text[0] == '{') {
    instruction.variant = instruction.count == 0 ? 1 : 2;
    const auto parts = split_operands(text.substr(1, text.size() - 2));
    instruction.parts = static_cast<uint8_t>(parts.size());
    for (const std::string& part : parts) add_value(instruction, part);
  } else if (text[0] == '[') {
    add_address(instruction, trim(text.substr(1, text.size() - 2)), addresses++);
  } else if (const size_t bar = text.find('|'); bar != std::string::npos) {
    add_value(instruction, trim(text.substr(0, bar)));
    add_value(instruction, trim(text.substr(bar + 1)));
  } else {
    add_value(instruction, text);
    if (with_predicate) instruction.operands[static_cast<size_t>(instruction.count++)] = kSink;
  }
}

void Statements::add(std::string statement, int line) {
  line_ = line;
  Instruction instruction;
  instruction.line = line;
  entry_->texts.push_back(statement);
  if (statement[0] == '@') {
    const size_t space = statement.find_first_of(" \t");
    instruction.guard_negated = statement[1] == '!';
    const std::string guard =
        statement.substr(instruction.guard_negated ? 2 : 1, space - (instruction.guard_negated ? 2 : 1));
    instruction.guard = find_register(guard);
    if (instruction.guard < 0) fail("line %d: unknown predicate %s", line, guard.c_str());
    statement = trim(statement.substr(space));
  }
  const size_t space = statement.find_first_of(" \t");
  Mnemonic name(statement.substr(0, space));
  if (space != std::string::npos) {
    int addresses = 0;
    bool is_first = true;
    for (const std::string& text : split_operands(statement.substr(space))) {
      add_operand(instruction, text, is_first && name.base == "shfl", addresses);
      is_first = false;
    }
  }
  instruction.run = find_handler(name, instruction);
  entry_->code.push_back(instruction);
}

void Statements::finish() {
  for (const auto& names : jump_table_labels_) {
    auto& table = entry_->jump_tables.emplace_back();
    for (const std::string& name : names) {
      if (!labels_.count(name)) fail("no label %s in %s", name.c_str(), entry_->name.c_str());
      table.push_back(labels_[name]);
    }
  }
  for (const Unresolved& unresolved : unresolved_) {
    Instruction& instruction = entry_->code[unresolved.instruction];
    if (const auto label = labels_.find(unresolved.name); label != labels_.end()) {
      const auto table = jump_tables_.find(unresolved.name);
      instruction.target = table != jump_tables_.end() ? table->second : label->second;
    } else if (const auto symbol = symbols_.find(unresolved.name); symbol != symbols_.end()) {
      const int32_t at = instruction.operands[static_cast<size_t>(unresolved.operand)];
      entry_->constants[static_cast<size_t>(~at)] = static_cast<uint64_t>(symbol->second);
    } else {
      instruction.run = run_unknown;
    }
  }
}

}  // namespace ptx
