// Reads the text of a module: kernels, their variables and labels.
#include <algorithm>
#include <memory>
#include <regex>

#include "machine.h"
#include "statement.h"

namespace ptx {
namespace {

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

std::string without_comments(const std::string& text) {
  std::string clean;
  for (size_t i = 0; i < text.size();) {
    if (text.compare(i, 2, "//") == 0) {
      while (i < text.size() && text[i] != '\n') ++i;
    } else {
      clean += text[i++];
    }
  }
  return clean;
}

// Of `.shared .align 16 .b8 name[32]` and the like. An array without a size has -1.
struct Variable {
  std::string name;
  int align, element_bytes, count;
  int bytes() const { return element_bytes * count; }
};

Variable parse_variable(const std::string& statement, int line) {
  static const std::regex kForm(R"(\.\w+\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*(\[(\d*)\])?\s*$)");
  std::smatch match;
  if (!std::regex_search(statement, match, kForm)) fail("line %d: unknown variable %s", line, statement.c_str());
  const int bytes = bytes_of(type_named(match.str(2)));
  const int count = !match[4].matched ? 1 : match.length(5) == 0 ? -1 : std::stoi(match.str(5));
  return {match.str(3), match[1].matched ? std::stoi(match.str(1)) : bytes, bytes, count};
}

// Where a variable goes behind `bytes` others.
int place(const Variable& variable, int& bytes) {
  const int offset = round_up(bytes, variable.align);
  bytes = offset + variable.bytes();
  return offset;
}

class Parser {
 public:
  explicit Parser(const EntryText& entry) {
    feed(*entry.module);
    line_ = entry.line;
    feed(entry.text);
  }

  Entry take() { return std::move(entry_); }

 private:
  void feed(const std::string& text) {
    for (const char c : text) {
      if (c == '\n') ++line_;
      if (depth_ == 0) {
        outside(c);
      } else {
        inside(c);
      }
    }
  }

  void outside(char c) {
    if (c == ';') {
      declare_in_module(trim(take_pending()));
    } else if (c == '{' && pending_.find(".entry") != std::string::npos) {
      begin_entry(take_pending());
      depth_ = 1;
    } else if (c == '{' && pending_.find(".func") != std::string::npos) {
      fail("line %d: functions that are called are unknown to the interpreter", line_);
    } else {
      pending_ += c;
    }
  }

  void inside(char c) {
    const bool is_blank = trim(pending_).empty();
    if (c == '{' && is_blank) {
      ++depth_;
      statements_.begin_scope();
    } else if (c == '}' && is_blank) {
      statements_.end_scope();
      if (--depth_ == 0) end_entry();
    } else if (c == ':' && !is_blank && trim(pending_).find_first_of(" \t.[") == std::string::npos) {
      statements_.define_label(trim(take_pending()));
    } else if (c == ';') {
      statement(trim(take_pending()));
    } else {
      pending_ += c == '\n' ? ' ' : c;
    }
  }

  std::string take_pending() {
    std::string taken;
    taken.swap(pending_);
    return taken;
  }

  void declare_in_module(const std::string& statement) {
    if (statement.find(".shared") == std::string::npos) return;  // constants of the library, which nobody reads
    const Variable variable = parse_variable(statement, line_);
    if (variable.count < 0) {
      dynamic_names_.push_back(variable.name);
    } else {
      module_shared_.push_back(variable);
    }
  }

  void begin_entry(const std::string& header) {
    static const std::regex kName(R"(\.entry\s+([\w$]+)\s*\()");
    static const std::regex kParameter(
        R"(\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s+[\w. ]*?)?([\w$]+)(?:\[(\d+)\])?\s*[,)\n])");
    static const std::regex kThreads(R"(\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?)");
    std::smatch match;
    if (!std::regex_search(header, match, kName)) fail("line %d: unknown entry", line_);
    entry_ = Entry();
    entry_.name = match.str(1);
    statements_ = Statements(&entry_);
    if (std::regex_search(header, match, kThreads)) {
      entry_.max_threads = std::stoi(match.str(1));
      for (int i = 2; i <= 3; ++i) entry_.max_threads *= match[i].matched ? std::stoi(match.str(i)) : 1;
    }
    for (std::sregex_iterator at(header.begin(), header.end(), kParameter), end; at != end; ++at) {
      const std::smatch& parameter = *at;
      const int unit = bytes_of(type_named(parameter.str(2)));
      const int align = parameter[1].matched ? std::stoi(parameter.str(1)) : unit;
      const int bytes = parameter[4].matched ? std::stoi(parameter.str(4)) * unit : unit;
      const int offset = round_up(entry_.parameter_bytes, align);
      entry_.parameters.push_back({offset, bytes});
      entry_.parameter_bytes = offset + bytes;
      statements_.define_symbol(parameter.str(3), offset);
    }
    for (const Variable& variable : module_shared_) {
      statements_.define_symbol(variable.name, place(variable, entry_.shared_bytes));
    }
  }

  void end_entry() {
    entry_.dynamic_offset = round_up(entry_.shared_bytes, 16);
    for (const std::string& name : dynamic_names_) {
      statements_.define_symbol(name, entry_.dynamic_offset);
    }
    statements_.finish();
  }

  void statement(const std::string& statement) {
    if (statement.empty()) return;
    const auto starts_with = [&](const char* word) { return statement.rfind(word, 0) == 0; };
    if (starts_with(".reg")) {
      statements_.declare_registers(statement);
    } else if (starts_with(".shared")) {
      const Variable variable = parse_variable(statement, line_);
      statements_.define_symbol(variable.name, place(variable, entry_.shared_bytes));
    } else if (starts_with(".local")) {
      const Variable variable = parse_variable(statement, line_);
      statements_.define_symbol(variable.name, place(variable, entry_.local_bytes));
    } else if (starts_with(".branchtargets")) {
      statements_.define_jump_table(statement.substr(14));
    } else if (starts_with(".pragma") || starts_with(".loc")) {
      return;
    } else {
      statements_.add(statement, line_);
    }
  }

  int line_ = 1, depth_ = 0;
  std::string pending_;
  std::vector<std::string> dynamic_names_;
  std::vector<Variable> module_shared_;
  Entry entry_;
  Statements statements_{&entry_};
};

}  // namespace

std::map<std::string, EntryText> split_module(const std::string& commented) {
  const std::string text = without_comments(commented);
  auto module = std::make_shared<std::string>();  // what is outside of kernels
  std::map<std::string, EntryText> entries;
  int line = 1;
  for (size_t at = 0; at < text.size();) {
    // A kernel begins with its linkage, and ends with the first brace at the begin of a line.
    const size_t mark = text.find(".entry", at);
    const size_t begin = mark == std::string::npos ? text.size() : mark;
    module->append(text, at, begin - at);
    line += static_cast<int>(
        std::count(text.begin() + static_cast<long>(at), text.begin() + static_cast<long>(begin), '\n'));
    if (begin == text.size()) break;
    const size_t end = std::min(text.find("\n}", begin), text.size() - 2) + 2;
    const size_t name = text.find_first_not_of(" \t\n", begin + 6);
    const std::string body = text.substr(begin, end - begin);
    entries[text.substr(name, text.find_first_of(" \t\n(", name) - name)] = {module, body, line};
    line += static_cast<int>(std::count(body.begin(), body.end(), '\n'));
    at = end;
  }
  return entries;
}

Entry parse_entry(const EntryText& text) { return Parser(text).take(); }

}  // namespace ptx
