// A kernel as it is executed: instructions with their operands resolved to registers, constants and jump targets.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "types.h"

namespace ptx {

struct Thread;
struct Instruction;
using Handler = void (*)(Thread&, const Instruction&);

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam };

// Registers that every thread of a block is given before it starts; each entry's own follow behind them.
enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kLanesLt,
  kLanesLe,
  kLanesGt,
  kLanesGe,
  kLanesEq,
  kSink,
  kSpecials
};

struct Instruction {
  Handler run = nullptr;
  int32_t guard = -1;  // register of the predicate, or -1
  bool guard_negated = false;
  uint16_t negated = 0;  // bit i: operand i is a predicate that counts as its opposite
  uint8_t parts = 0;     // of the operand in braces
  uint8_t bytes = 0;     // of one value
  Type type = Type::kNone;
  Space space = Space::kGeneric;
  uint8_t variant = 0;                                                       // what else the handler wants to know
  bool acquire = false, release = false, strong = false, read_only = false;  // of an access to memory
  int32_t count = 0;                                                         // of operands
  std::array<int32_t, 16> operands{};  // a register, or ~index of a constant; braces and a|b are taken apart
  std::array<int64_t, 2> offsets{};    // of the addresses among them, in their order
  int32_t target = -1;                 // of a jump, or the number of its table
  int32_t line = 0;
  mutable uint64_t runs = 0;
};

struct Parameter {
  int offset, bytes;
};

struct Entry {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::string> texts;  // of the instructions
  std::vector<uint64_t> constants;
  std::vector<std::vector<int32_t>> jump_tables;
  std::vector<Parameter> parameters;
  int registers = kSpecials;
  int parameter_bytes = 0;
  int shared_bytes = 0;    // static
  int dynamic_offset = 0;  // where dynamic shared memory begins
  int local_bytes = 0;     // of one thread
  int max_threads = 1024;
};

// An instruction's name taken apart at its dots. A handler takes the words that it understands; an instruction of which
// words are left over is one that the interpreter does not know.
class Mnemonic {
 public:
  explicit Mnemonic(const std::string& text);

  bool take(std::string_view word);
  Type take_type();  // the first word that names one
  bool empty() const { return words_.empty(); }

  std::string base;

 private:
  std::vector<std::string> words_;
};

// Each: what executes the instruction, or null. They may set what an instruction says beside its operands.
Handler find_arithmetic(Mnemonic& name, Instruction& instruction);
Handler find_bitwise(Mnemonic& name, Instruction& instruction);
Handler find_conversion(Mnemonic& name, Instruction& instruction);
Handler find_memory(Mnemonic& name, Instruction& instruction);
Handler find_control(Mnemonic& name, Instruction& instruction);

// A kernel of a module before it is parsed, which happens when it is launched first.
struct EntryText {
  std::shared_ptr<const std::string> module;  // what the module says outside of its kernels
  std::string text;
  int line = 1;  // that the text begins at
};
std::map<std::string, EntryText> split_module(const std::string& text);
Entry parse_entry(const EntryText& text);

}  // namespace ptx
