// Runs one kernel of a PTX file that is written by hand, whose parameters are all arrays:
//   run_module FILE ENTRY BLOCKS THREADS [cooperative] [shared=BYTES] [zeros=BYTES | numbers=BYTES |
//   undefined=BYTES]...
// and writes each array as numbers of 32 bits, a line each. `numbers` are 0, 1, 2, ...
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "interpreter/machine.h"
#include "settings.h"

int main(int argc, char** argv) {
  if (argc < 5) ptx::fail("run_module FILE ENTRY BLOCKS THREADS [cooperative] [KIND=BYTES]...");
  read_settings();
  load_file(argv[1]);
  bool cooperative = false;
  size_t shared_bytes = 0;
  std::vector<std::vector<uint32_t>> arrays;
  std::vector<void*> pointers;
  arrays.reserve(static_cast<size_t>(argc));
  for (int i = 5; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "cooperative") {
      cooperative = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string kind = argument.substr(0, equals);
    const size_t bytes = std::stoul(argument.substr(equals + 1));
    if (kind == "shared") {
      shared_bytes = bytes;
      continue;
    }
    std::vector<uint32_t>& array = arrays.emplace_back((bytes + 3) / 4);
    for (size_t n = 0; kind == "numbers" && n < array.size(); ++n) array[n] = static_cast<uint32_t>(n);
    ptx::add_memory(array.data(), bytes);
    ptx::set_defined(array.data(), bytes, kind != "undefined");
    pointers.push_back(array.data());
  }
  std::vector<void*> arguments;
  for (void*& pointer : pointers) arguments.push_back(&pointer);
  const ptx::Dim blocks{static_cast<unsigned>(std::atoi(argv[3]))}, threads{static_cast<unsigned>(std::atoi(argv[4]))};
  if (!ptx::launch(argv[2], blocks, threads, shared_bytes, cooperative, arguments.data())) {
    ptx::fail("no device accepts this launch");
  }
  for (const std::vector<uint32_t>& array : arrays) {
    for (const uint32_t number : array) std::printf("%u ", number);
    std::printf("\n");
  }
}
