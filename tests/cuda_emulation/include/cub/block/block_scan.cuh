// Stand-in for cub::BlockScan.
#pragma once

#include "emulated_collective.h"

namespace cub {

enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };

template <typename T, int kThreads, BlockScanAlgorithm = BLOCK_SCAN_RAKING>
class BlockScan {
 public:
  using TempStorage = emulation::Slots<T, kThreads>;

  explicit BlockScan(TempStorage& storage) : storage_(storage) {}

  template <typename Op>
  void InclusiveScan(
      const T& in, T& out, Op op, T& total, std::source_location where = std::source_location::current()) {
    emulation::collect(
        storage_, in,
        [&] {
          for (int t = 1; t < kThreads; ++t) storage_.values[t] = op(storage_.values[t - 1], storage_.values[t]);
        },
        where);
    out = storage_.values[emulation::thread_number()];
    total = storage_.values[kThreads - 1];
  }

  template <int kItems, typename Op>
  void ExclusiveScan(
      T (&in)[kItems], T (&out)[kItems], T initial, Op op, T& total,
      std::source_location where = std::source_location::current()) {
    T own = in[0];
    for (int i = 1; i < kItems; ++i) own = op(own, in[i]);
    emulation::collect(
        storage_, own,
        [&] {
          T before = initial;
          storage_.total = storage_.values[0];
          for (int t = 0; t < kThreads; ++t) {
            const T value = storage_.values[t];
            if (t > 0) storage_.total = op(storage_.total, value);
            storage_.values[t] = before;
            before = op(before, value);
          }
        },
        where);
    T before = storage_.values[emulation::thread_number()];
    for (int i = 0; i < kItems; ++i) {
      const T value = in[i];
      out[i] = before;
      before = op(before, value);
    }
    total = storage_.total;
  }

  template <typename Op>
  void ExclusiveScan(
      const T& in, T& out, T initial, Op op, T& total, std::source_location where = std::source_location::current()) {
    T ins[1] = {in}, outs[1];
    ExclusiveScan(ins, outs, initial, op, total, where);
    out = outs[0];
  }

  void InclusiveSum(T in, T& out, T& total, std::source_location where = std::source_location::current()) {
    InclusiveScan(in, out, Add(), total, where);
  }

  void ExclusiveSum(T in, T& out, std::source_location where = std::source_location::current()) {
    T ins[1] = {in}, outs[1], total;
    ExclusiveScan(ins, outs, T(), Add(), total, where);
    out = outs[0];
  }

  void ExclusiveSum(T in, T& out, T& total, std::source_location where = std::source_location::current()) {
    ExclusiveScan(in, out, T(), Add(), total, where);
  }

  template <int kItems>
  void ExclusiveSum(
      T (&in)[kItems], T (&out)[kItems], T& total, std::source_location where = std::source_location::current()) {
    ExclusiveScan(in, out, T(), Add(), total, where);
  }

 private:
  struct Add {
    T operator()(const T& a, const T& b) const { return a + b; }
  };

  TempStorage& storage_;
};

}  // namespace cub
