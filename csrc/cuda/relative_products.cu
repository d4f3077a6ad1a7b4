// Second pass of relative_measures: the inner products of centred directions, c = x / |x| - m.
//
// A block takes a tile, up to 128 places of a frame in 4 (or 2) consecutive frames, and a slice of the columns. It goes
// through the slice 16 columns at a time: converts what it needs of frames t - 4 .. t + 3 to c in shared memory, and
// then each thread adds to the 2 * 16 sums of one place in two frames, which stay in registers. In shared memory places
// lie beside each other, 4 columns each, so that a warp reads any neighbour of 32 places without bank conflicts.
//
// The places around one are needed of every second frame alone (see Sum); of the others those above and on the left
// are, and of the four frames before the tile only the place itself.
//
// Slices of all tiles are summed elsewhere, always in the same order. Blocks take the tiles of one slice after those of
// another: a slice of a long video is some 20 MB, so the frames that tiles share come from the L2 cache.
//
// 40,000 x 3,584 bfloat16: 4.7 Gflop; from L2 2.3 times the tokens, 660 MB, from memory 290 MB; writes 41 MB of sums;
// shared memory moves 35 bytes a value, 5 GB. Measured on an H200 by Nsight Compute: 398 us, shared memory and the L1
// cache busy for 78% of them. Slower, and not here: a thread with four frames of half the columns, whose 64 sums leave
// too few registers (407); tokens as they are in shared memory, copied by cp.async and converted whenever they are
// read, which moves half the bytes but takes half as many instructions again (551).
#include "elements.cuh"
#include "relative.cuh"

namespace score::cuda {
namespace {

constexpr int kGroup = 16;  // columns in shared memory
constexpr int kQuads = kGroup / 4;
constexpr int kPast = 4;  // frames before a tile's first
// A thread has one place in two of the tile's frames.
template <int kFrames>
constexpr int kThreads = kFrames / 2 * kTilePlaces;

// Places of one frame and quad in shared memory: of a frame that is read all around, of one that is read above and on
// the left, and of one of the frames before. 2 more than a multiple of 8, so that threads that write different quads
// of neighbouring places use different banks.
constexpr int kAroundStride = 210, kBeforeStride = 170, kOwnStride = 130;
static_assert(kAroundStride >= kTilePlaces + 2 * (kMaxReach + 1) && kAroundStride >= 3 * (kWideTilePlaces + 2));
static_assert(kBeforeStride >= kTilePlaces + kMaxReach + 1 && kBeforeStride >= 2 * (kWideTilePlaces + 2));
static_assert(kAroundStride % 8 == 2 && kBeforeStride % 8 == 2 && kOwnStride % 8 == 2 && kOwnStride >= kTilePlaces);

template <int kFrames>
struct TileMemory {
  float4 around[kFrames / 2][kQuads][kAroundStride];  // even frames of the tile
  float4 before[kFrames / 2][kQuads][kBeforeStride];  // odd ones
  float4 own[kPast][kQuads][kOwnStride];
  float4 mean[kQuads];                 // the video's
  float4 frame_mean[kFrames][kQuads];  // less the video's
  int64_t mean_row[kFrames];           // of `directions`
  int row[kPast + kFrames];            // of the batch, the frame's first
};

// Which places and frames, and where a place lies in shared memory. Where rows are short, the places from the row above
// the first one to the row below the last one lie there as in the frame. Where they are long, three runs of places do:
// those of the tile, those above, those below, each with one more at both ends. Rows of a batch are int32.
struct Tile {
  int64_t video;
  VideoShape shape;
  int frame;  // of the video, the tile's first
  int place;  // of the frame, the tile's first
  int places;
  int reach;  // from a place to the one below it in the frame; 0 where frames are one row
  int step;   // the same in shared memory
  int first;  // in shared memory, the tile's first place
  bool wide;

  __device__ Tile(const RelativeLayout& layout, int64_t number, int tile_frames) {
    video = layout.find(layout.scratch.first_tile, number);
    shape = layout.shape(video);
    const int tile = static_cast<int>(number - layout.scratch.first_tile[video]);
    const int in_frame = static_cast<int>(shape.in_frame), tiles = static_cast<int>(tiles_per_frame(shape));
    frame = tile / tiles * tile_frames;
    const int even = (in_frame + tiles - 1) / tiles;  // no tile much smaller than the others
    place = tile % tiles * even;
    const int left = in_frame - place;
    places = left < 0 ? 0 : (left < even ? left : even);
    reach = static_cast<int>(tile_reach(shape));
    wide = reach > kMaxReach;
    step = wide ? places + 2 : reach;
    first = step + 1;
  }

  // How many places of a frame lie in shared memory, up to the last one that is read.
  __device__ int places_around() const { return first + places + step + 1; }
  __device__ int places_before() const { return first + places; }

  // The place that lies there, or the nearest one of the frame.
  __device__ int place_at(int in_memory) const {
    const int at = wide ? place - 1 + (in_memory / step - 1) * reach + in_memory % step : place - first + in_memory;
    return clamped(at);
  }
  __device__ int clamped(int at) const {
    const int last = static_cast<int>(shape.in_frame) - 1;
    return at < 0 ? 0 : (at > last ? last : at);
  }
};

// The elements from a column on as they lie in memory, 0 beyond the row.
template <typename T, bool kVector>
__device__ uint4 load_elements(const T* row, int64_t column, int64_t width) {
  if constexpr (kVector) {
    return __ldg(reinterpret_cast<const uint4*>(row + column));
  } else {
    constexpr int kElements = kVectorElements<T>;
    T elements[kElements];
#pragma unroll
    for (int e = 0; e < kElements; ++e) elements[e] = column + e < width ? row[column + e] : from_float<T>(0.0f);
    uint4 vector;
    memcpy(&vector, elements, kVectorBytes);
    return vector;
  }
}

__device__ inline void add_product(const float4& a, const float4& b, float& sum) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  sum = fmaf(a.w, b.w, sum);
}

// Puts centred directions into shared memory. kElements columns of a row are a thread's. A place or frame that is not
// there is filled with the nearest one's: the sums that it goes into are not looked at.
template <typename T, bool kVector, int kFrames>
class TileFiller {
 public:
  __device__ TileFiller(
      const T* tokens, int64_t width, const RelativeLayout& layout, const Tile& tile, TileMemory<kFrames>& memory)
      : tokens_(tokens),
        width_(width),
        scale_(layout.scratch.scale),
        video_mean_(layout.scratch.video_means + tile.video * width),
        frame_means_(layout.scratch.directions),
        around_(tile.places_around()),
        before_(tile.places_before()),
        memory_(memory) {
    static_assert(kFrames == 2 || kFrames == 4);
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int p = 0; p < passes(kPast); ++p) near_[p] = tile.place_at(thread / kLanes + p * kRows);
#pragma unroll
    for (int p = 0; p < passes(0); ++p) own_[p] = tile.clamped(tile.place + thread / kLanes + p * kRows);
    if (thread < kPast + kFrames) {
      const int frame = tile.frame - kPast + thread, last = static_cast<int>(tile.shape.frames) - 1;
      const int64_t nearest = frame < 0 ? 0 : (frame > last ? last : frame);
      memory.row[thread] = static_cast<int>(tile.shape.begin + nearest * tile.shape.in_frame);
      if (thread >= kPast) memory.mean_row[thread - kPast] = layout.run_row(tile.video, tile.shape, nearest);
    }
  }

  // Called by all threads, when `row` and `mean_row` of the memory are written: fills in kGroup columns.
  __device__ void fill(int64_t column) {
    const int64_t mine = column + static_cast<int>(threadIdx.x) % kLanes * kElements;
    float mean[kElements] = {};
    if (mine < width_) {
      if constexpr (kVector) {
#pragma unroll
        for (int q = 0; q < kElements / 4; ++q) {
          const float4 four = __ldg(reinterpret_cast<const float4*>(video_mean_ + mine) + q);
          mean[4 * q] = four.x, mean[4 * q + 1] = four.y, mean[4 * q + 2] = four.z, mean[4 * q + 3] = four.w;
        }
      } else {
#pragma unroll
        for (int e = 0; e < kElements; ++e) mean[e] = mine + e < width_ ? __ldg(video_mean_ + mine + e) : 0.0f;
      }
      fill_frames<0, kPast>(mine, mean);
      fill_frames<kPast, 2>(mine, mean);
      if constexpr (kFrames == 4) fill_frames<kPast + 2, 2>(mine, mean);
    } else {
#pragma unroll
      for (int j = 0; j < kPast + kFrames; ++j) {
#pragma unroll
        for (int p = 0; p < passes(j); ++p) store(j, p, mean);
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < (kFrames + 1) * kGroup; i += kThreads<kFrames>) {
      const int frame = i / kGroup, in_group = i % kGroup;
      const bool exists = column + in_group < width_;
      const float centre = exists ? __ldg(video_mean_ + column + in_group) : 0.0f;
      float* out = reinterpret_cast<float*>(frame < kFrames ? memory_.frame_mean[frame] : memory_.mean) + in_group;
      *out = centre;
      if (frame < kFrames && exists) {
        *out = __ldg(frame_means_ + memory_.mean_row[frame] * width_ + column + in_group) - centre;
      }
    }
  }

 private:
  static constexpr int kElements = kVectorElements<T>;
  static constexpr int kLanes = kGroup / kElements;         // threads that share a row
  static constexpr int kRows = kThreads<kFrames> / kLanes;  // rows at a time
  static constexpr int kMaxPasses = (kAroundStride + kRows - 1) / kRows;

  __device__ static constexpr int most_places(int j) {
    return j < kPast ? kTilePlaces : (j % 2 == 0 ? kAroundStride : kBeforeStride);
  }
  __device__ static constexpr int passes(int j) { return (most_places(j) + kRows - 1) / kRows; }

  // Whether the place of pass p is one of frame j. Of those that every frame has memory for we do not ask.
  __device__ bool is_needed(int j, int p) const {
    if ((p + 1) * kRows <= kTilePlaces) return true;
    return static_cast<int>(threadIdx.x) / kLanes + p * kRows < (j % 2 == 0 ? around_ : before_);
  }

  // Frames kBegin .. kBegin + kCount of the kPast before the tile and its own: first all loads, then all stores.
  template <int kBegin, int kCount>
  __device__ void fill_frames(int64_t column, const float (&mean)[kElements]) {
    uint4 raw[kCount][kMaxPasses];
    float scale[kCount][kMaxPasses];
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const int row = memory_.row[kBegin + j];
#pragma unroll
      for (int p = 0; p < passes(kBegin + j); ++p) {
        if (!is_needed(kBegin + j, p)) continue;
        const int64_t token = row + (kBegin + j < kPast ? own_[p] : near_[p]);
        raw[j][p] = load_elements<T, kVector>(tokens_ + token * width_, column, width_);
        scale[j][p] = __ldg(scale_ + token);
      }
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
#pragma unroll
      for (int p = 0; p < passes(kBegin + j); ++p) {
        if (!is_needed(kBegin + j, p)) continue;
        float values[kElements];
        unpack<T>(raw[j][p], values);
        const Direction direction(scale[j][p]);
        if (direction.first != 1.0f) {
#pragma unroll
          for (int e = 0; e < kElements; ++e) values[e] *= direction.first;
        }
#pragma unroll
        for (int e = 0; e < kElements; ++e) values[e] = fmaf(values[e], direction.second, -mean[e]);
        store(kBegin + j, p, values);
      }
    }
  }

  __device__ void store(int j, int p, const float (&values)[kElements]) {
    if (!is_needed(j, p)) return;
    const int thread = static_cast<int>(threadIdx.x), at = thread / kLanes + p * kRows;
#pragma unroll
    for (int q = 0; q < kElements / 4; ++q) {
      const int quad = thread % kLanes * (kElements / 4) + q, f = j - kPast;
      float4* to = j < kPast ? &memory_.own[j][quad][at]
                             : (f % 2 == 0 ? &memory_.around[f / 2][quad][at] : &memory_.before[f / 2][quad][at]);
      *to = float4{values[4 * q], values[4 * q + 1], values[4 * q + 2], values[4 * q + 3]};
    }
  }

  const T* tokens_;
  int64_t width_;
  const float* scale_;
  const float* video_mean_;
  const float* frame_means_;
  int around_, before_;  // places of a frame
  int near_[kMaxPasses], own_[kMaxPasses];
  TileMemory<kFrames>& memory_;
};

// Adds 4 columns of a place to its sums in two frames, kFirst and the next of the tile.
template <int kFirst, int kFrames>
__device__ void add_products(
    const TileMemory<kFrames>& memory, int quad, int place, int first, int step, float (&sums)[2][kSums]) {
  float4 own[kPast + 2];  // of frames kFirst - kPast .. kFirst + 1
#pragma unroll
  for (int j = 0; j < kPast + 2; ++j) {
    const int f = kFirst + j - kPast;
    own[j] = f < 0
                 ? memory.own[f + kPast][quad][place]
                 : (f % 2 == 0 ? memory.around[f / 2][quad][first + place] : memory.before[f / 2][quad][first + place]);
  }
  const float4 mean = memory.mean[quad];
#pragma unroll
  for (int f = 0; f < 2; ++f) {
    const float4& c = own[kPast + f];
    add_product(c, own[kPast + f - 2], sums[f][kSumBack2]);
    add_product(c, own[kPast + f - 4], sums[f][kSumBack4]);
    add_product(c, c, sums[f][kSumSelf]);
    add_product(c, memory.frame_mean[kFirst + f][quad], sums[f][kSumFrame]);
    add_product(c, mean, sums[f][kSumVideo]);
    add_product(c, own[kPast + f - 1], sums[f][kSumCentre]);
  }
  const float4 &before = own[kPast - 1], &c = own[kPast], &after = own[kPast + 1];
  const float4* around = &memory.around[kFirst / 2][quad][first + place];
#pragma unroll
  for (int offset = 0; offset < 9; ++offset) {
    if (offset == 4) continue;
    const float4 there = around[(offset / 3 - 1) * step + offset % 3 - 1];
    add_product(before, there, sums[0][kSumAround + offset]);
    add_product(after, there, sums[1][kSumAround + offset]);
    if (offset == 1) add_product(c, there, sums[0][kSumUp]);
    if (offset == 3) add_product(c, there, sums[0][kSumLeft]);
  }
  const float4* beside = &memory.before[kFirst / 2][quad][first + place];
  add_product(after, beside[-step], sums[1][kSumUp]);
  add_product(after, beside[-1], sums[1][kSumLeft]);
}

// Columns of a slice, a multiple of kGroup.
__host__ __device__ inline int64_t slice_width(int64_t width, int64_t slices) {
  return ceil_div(ceil_div(width, slices), kGroup) * kGroup;
}

template <typename T, bool kVector, int kFrames>
__global__ void __launch_bounds__(kThreads<kFrames>, kFrames == 4 ? 2 : 3)
    tile_products(const T* tokens, int64_t width, RelativeLayout layout) {
  SCORE_DYNAMIC_SHARED(float4, dynamic);
  TileMemory<kFrames>& memory = *reinterpret_cast<TileMemory<kFrames>*>(dynamic);
  const int thread = static_cast<int>(threadIdx.x), place = thread % kTilePlaces, first = thread / kTilePlaces * 2;
  const int64_t tiles = layout.scratch.first_tile[layout.batch.num_videos];
  const int64_t slices = layout.scratch.slices, columns = slice_width(width, slices);
  for (int64_t item = blockIdx.x; item < tiles * slices; item += gridDim.x) {
    const int64_t slice = item / tiles;
    const Tile tile(layout, item % tiles, kFrames);
    if (tile.shape.frames == 0) continue;  // of a video that a wrong T leaves no frames
    TileFiller<T, kVector, kFrames> filler(tokens, width, layout, tile, memory);
    __syncthreads();
    const int64_t end = (slice + 1) * columns < width ? (slice + 1) * columns : width;
    float sums[2][kSums] = {};
    for (int64_t column = slice * columns; column < end; column += kGroup) {
      filler.fill(column);
      __syncthreads();
      if (place < tile.places) {
#pragma unroll 2
        for (int quad = 0; quad < kQuads; ++quad) {
          if (first == 0) {  // the same for a whole warp
            add_products<0, kFrames>(memory, quad, place, tile.first, tile.step, sums);
          } else {
            add_products<kFrames - 2, kFrames>(memory, quad, place, tile.first, tile.step, sums);
          }
        }
      }
      __syncthreads();
    }
    if (place >= tile.places) continue;
#pragma unroll
    for (int f = 0; f < 2; ++f) {
      const int64_t frame = tile.frame + first + f;
      if (frame >= tile.shape.frames) continue;
      const int64_t row = tile.shape.begin + frame * tile.shape.in_frame + tile.place + place;
      float* out = layout.scratch.sums + slice * kSums * layout.batch.num_tokens + row;
#pragma unroll
      for (int k = 0; k < kSums; ++k) out[k * layout.batch.num_tokens] = sums[f][k];
    }
  }
}

// Lets a kernel have the shared memory that it wants, always the same. The carveout is left to the driver, which makes
// room for two blocks and leaves the L1 cache the rest.
template <typename T, bool kVector, int kFrames>
cudaError_t ask_for_shared_memory() {
  auto kernel = tile_products<T, kVector, kFrames>;
  constexpr int kBytes = static_cast<int>(sizeof(TileMemory<kFrames>));
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
}

template <typename T, bool kVector, int kFrames>
cudaError_t launch_products(const TokenBatch& tokens, const RelativeLayout& layout, cudaStream_t stream) {
  auto kernel = tile_products<T, kVector, kFrames>;
  constexpr int kBytes = static_cast<int>(sizeof(TileMemory<kFrames>));
  if (cudaError_t error = ask_for_shared_memory<T, kVector, kFrames>()) return error;
  int64_t resident = 0;
  if (cudaError_t error = resident_blocks(kernel, kThreads<kFrames>, kBytes, &resident)) return error;
  SCORE_LAUNCH(
      kernel, grid_size(resident), kThreads<kFrames>, kBytes, stream, static_cast<const T*>(tokens.tokens),
      tokens.width, layout);
  return cudaGetLastError();
}

}  // namespace

int64_t num_slices(int64_t width) {
  // Enough for a small batch to fill the device, and for a large one to end at about the same time on all of it: a
  // video of 64 x 625 tokens of 3,584 makes 1,280 pieces of work, 4.85 for each of an H100's 264 blocks. The sums of a
  // slice are as many bytes a token as 32 of its columns in bfloat16.
  const int64_t columns = width <= 1024 ? 64 : 224;
  return width > columns ? ceil_div(width, slice_width(width, ceil_div(width, columns))) : 1;
}

cudaError_t choose_tile_frames(const TokenBatch& tokens, int* tile_frames) {
  int device = 0, multiprocessors = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) {
    return error;
  }
  // Four frames read less, two make twice as many blocks, and less code for rows that are loaded element by element.
  const int64_t element_bytes = tokens.dtype == DType::kFloat32 ? 4 : 2;
  const int64_t blocks = tokens.num_tokens * num_slices(tokens.width) / (4 * kTilePlaces);
  *tile_frames = 2;
  if (blocks < 2 * multiprocessors || !has_vector_rows(tokens.tokens, tokens.width * element_bytes)) return cudaSuccess;
  const cudaError_t refused =
      dispatch_dtype(tokens.dtype, [](auto element) { return ask_for_shared_memory<decltype(element), true, 4>(); });
  if (refused) {
    cudaGetLastError();  // Turing has 64 KB: not an error that the next launch should be blamed for
  } else {
    *tile_frames = 4;
  }
  return cudaSuccess;
}

cudaError_t products(const TokenBatch& tokens, const RelativeLayout& layout, int tile_frames, cudaStream_t stream) {
  return dispatch_dtype(tokens.dtype, [&](auto element) {
    using T = decltype(element);
    const bool vector = has_vector_rows(tokens.tokens, tokens.width * static_cast<int64_t>(sizeof(T)));
    if (!vector) return launch_products<T, false, 2>(tokens, layout, stream);
    return tile_frames == 4 ? launch_products<T, true, 4>(tokens, layout, stream)
                            : launch_products<T, true, 2>(tokens, layout, stream);
  });
}

}  // namespace score::cuda
