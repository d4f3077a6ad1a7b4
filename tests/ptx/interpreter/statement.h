// The statements of one kernel: names become registers, constants and jump targets.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "program.h"

namespace ptx {

std::string trim(const std::string& text);

class Statements {
 public:
  explicit Statements(Entry* entry) : entry_(entry) { begin_scope(); }

  void begin_scope() { scopes_.emplace_back(); }
  void end_scope() { scopes_.pop_back(); }
  void declare_registers(const std::string& statement);        // .reg .b64 %rd<185>
  void define_symbol(const std::string& name, int64_t value);  // of a parameter or variable: its offset
  void define_label(const std::string& name);
  void define_jump_table(const std::string& labels);  // of the label defined last
  void add(std::string statement, int line);          // an instruction
  void finish();

 private:
  struct Unresolved {
    size_t instruction;
    int operand;
    std::string name;
    bool is_address;
  };

  int find_register(const std::string& name) const;
  int32_t constant(uint64_t value);
  void add_operand(Instruction& instruction, const std::string& text, bool is_destination_of_shuffle, int& addresses);
  void add_address(Instruction& instruction, std::string text, int number);
  void add_value(Instruction& instruction, const std::string& text);

  Entry* entry_;
  int line_ = 0;
  std::vector<std::map<std::string, int>> scopes_;
  std::map<std::string, int64_t> symbols_;
  std::map<std::string, int> labels_;
  std::map<std::string, int> jump_tables_;
  std::string last_label_;
  std::vector<std::vector<std::string>> jump_table_labels_;
  std::vector<Unresolved> unresolved_;
};

}  // namespace ptx
