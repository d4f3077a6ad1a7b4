// The interpreter's settings, from the environment:
//   PTX_TURNS     how threads take turns: "random" (up to 64 instructions), "long", or a number of instructions
//   PTX_COPIES    when asynchronous copies land: "late", "early" or "random"
//   PTX_SEED      of what is random
//   PTX_RACES     0: no check for races
//   PTX_UNDEFINED 0: what nothing wrote may be read
//   PTX_LIMIT     instructions of a launch that is not endless
//   PTX_COVERAGE  a file: how often each instruction ran is appended to it at the end
#pragma once

void read_settings();
void load_file(const char* path);
