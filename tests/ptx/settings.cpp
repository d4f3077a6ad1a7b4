#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "interpreter/machine.h"

namespace {

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

void write_coverage() {
  const std::string path = setting("PTX_COVERAGE", "");
  if (path.empty()) return;
  if (FILE* file = std::fopen(path.c_str(), "a")) {
    ptx::report_coverage(file);
    std::fclose(file);
  }
}

}  // namespace

void read_settings() {
  ptx::Options& options = ptx::options;
  const std::string turns = setting("PTX_TURNS", "random"), copies = setting("PTX_COPIES", "random");
  options.random = turns == "random";
  options.turn = turns == "random" ? 64 : turns == "long" ? 100'000 : std::stoi(turns);
  options.copies_land = copies == "late"    ? ptx::Options::kAtWait
                        : copies == "early" ? ptx::Options::kAtOnce
                                            : ptx::Options::kAtRandom;
  options.check_races = setting("PTX_RACES", "1") != "0";
  options.check_undefined = setting("PTX_UNDEFINED", "1") != "0";
  options.most_instructions = std::stoull(setting("PTX_LIMIT", "4000000000"));
  options.seed = std::stoull(setting("PTX_SEED", "1"));
  ptx::random_engine.seed(options.seed);
  std::atexit(write_coverage);
}

void load_file(const char* path) {
  std::ifstream file(path);
  if (!file) ptx::fail("cannot read %s", path);
  std::stringstream text;
  text << file.rdbuf();
  ptx::load(text.str());
}
