#include "cuda/simt/host_simt.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace lutra::cuda {

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kMostIdleTurns = 1 << 16;  // of waiting in loops before the grid counts as stuck

class Grid;

class Stack {
 public:
  Stack()
      : memory_(
            mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Stack() {
    if (memory_ != MAP_FAILED) munmap(memory_, kStackBytes);
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  bool ok() const { return memory_ != MAP_FAILED; }
  void* memory() { return memory_; }

 private:
  void* memory_;
};

// Stacks that no grid uses: making one costs more than what most fibers do.
std::vector<std::unique_ptr<Stack>>& idle_stacks() {
  thread_local std::vector<std::unique_ptr<Stack>> stacks;
  return stacks;
}

std::unique_ptr<Stack> take_stack() {
  auto& idle = idle_stacks();
  if (idle.empty()) return std::make_unique<Stack>();
  std::unique_ptr<Stack> stack = std::move(idle.back());
  idle.pop_back();
  return stack;
}

struct Copy {
  void* to;
  const void* from;
  int group;
};

struct Fiber {
  ~Fiber() {
    if (stack) idle_stacks().push_back(std::move(stack));
  }

  ucontext_t context = {};
  std::unique_ptr<Stack> stack;
  int block = 0;
  int thread = 0;
  int slot = 0;  // of the block among the resident ones
  int copy_groups = 0;
  std::vector<Copy> copies;  // on their way
};

enum class Meeting : uint8_t { kNone, kWarp, kShuffle, kMmaF16, kMmaBf16, kBlock };

struct Operands {
  float* c;
  const uint32_t* a;
  const uint32_t* b;
  float value;
  int mask;
};

// Where the threads of a warp or a block wait for each other.
struct Barrier {
  Meeting kind = Meeting::kNone;
  std::vector<Fiber*> waiting;
};

struct Block {
  int index = -1;
  int running = 0;  // threads that have not ended
  std::vector<uint8_t> shared;
  std::vector<std::unique_ptr<Fiber>> fibers;
  Barrier barrier;
  std::vector<Barrier> warps;
  std::vector<Operands> operands;  // by thread
};

thread_local Grid* the_grid = nullptr;
thread_local Fiber* the_fiber = nullptr;

class Grid {
 public:
  Grid(const HostLaunch& launch, const std::function<void(uint8_t*)>& body)
      : launch_(launch), body_(body), random_(launch.seed) {}

  std::string run() {
    blocks_.resize(static_cast<size_t>(launch_.resident));
    Grid* const outer = the_grid;
    the_grid = this;
    for (Block& block : blocks_) start(block);
    while (!runnable_.empty() && wrong_.empty()) {
      const size_t pick = random_() % runnable_.size();
      Fiber* const fiber = runnable_[pick];
      runnable_[pick] = runnable_.back();
      runnable_.pop_back();
      the_fiber = fiber;
      swapcontext(&scheduler_, &fiber->context);
      if (ended_) start(*std::exchange(ended_, nullptr));
    }
    the_grid = outer;
    the_fiber = nullptr;
    if (wrong_.empty() && unfinished_ > 0) wrong_ = "threads wait at a barrier that others never reach";
    return wrong_;
  }

  void report(const char* what) {
    if (wrong_.empty())
      wrong_ = std::string(what) + " (block " + std::to_string(the_fiber->block) + ", thread " +
               std::to_string(the_fiber->thread) + ")";
  }

  // Waits until `count` threads are here. The last one to arrive does the work for all, who then go on in any order.
  template <typename Work>
  void meet(Barrier& barrier, size_t count, Meeting kind, Work&& work) {
    idle_turns_ = 0;
    if (barrier.waiting.empty()) barrier.kind = kind;
    if (barrier.kind != kind) report("threads of a warp meet at different instructions");
    barrier.waiting.push_back(the_fiber);
    if (barrier.waiting.size() == count) {
      work();
      runnable_.insert(runnable_.end(), barrier.waiting.begin(), barrier.waiting.end());
      barrier.waiting.clear();
    }
    swapcontext(&the_fiber->context, &scheduler_);
  }

  void yield() {
    if (++idle_turns_ > kMostIdleTurns) report("a block waits for one that is not there");
    runnable_.push_back(the_fiber);
    swapcontext(&the_fiber->context, &scheduler_);
  }

  const HostLaunch& launch() const { return launch_; }
  bool coin() { return random_() & 1; }
  Block& block() { return blocks_[static_cast<size_t>(the_fiber->slot)]; }

 private:
  static void enter() {
    Grid& grid = *the_grid;
    grid.body_(grid.block().shared.data());
    grid.finish();
  }

  void start(Block& block) {
    if (next_block_ >= launch_.blocks) return;
    const size_t threads = static_cast<size_t>(launch_.threads);
    block.index = next_block_++;
    block.running = launch_.threads;
    block.shared.assign(launch_.shared_bytes + 1, 0xff);  // NaN until written
    block.warps.assign(threads / kWarp, {});
    block.operands.resize(threads);
    block.fibers.resize(threads);
    for (size_t t = 0; t < threads; ++t) {
      auto& fiber = block.fibers[t];
      if (!fiber) {
        fiber = std::make_unique<Fiber>();
        fiber->stack = take_stack();
      }
      if (!fiber->stack->ok() || getcontext(&fiber->context)) {
        wrong_ = "no memory for the fibers";
        return;
      }
      fiber->block = block.index;
      fiber->thread = static_cast<int>(t);
      fiber->copies.clear();
      fiber->slot = static_cast<int>(&block - blocks_.data());
      fiber->context.uc_stack.ss_sp = fiber->stack->memory();
      fiber->context.uc_stack.ss_size = kStackBytes;
      fiber->context.uc_link = &scheduler_;
      makecontext(&fiber->context, &Grid::enter, 0);
      runnable_.push_back(fiber.get());
      ++unfinished_;
    }
  }

  // The fiber still stands on its stack here: the scheduler starts the slot's next block.
  void finish() {
    Block& block = this->block();
    const Barrier& warp = block.warps[static_cast<size_t>(the_fiber->thread / kWarp)];
    if (!warp.waiting.empty() || !block.barrier.waiting.empty()) report("a thread ends while others wait for it");
    idle_turns_ = 0;
    --unfinished_;
    if (--block.running == 0) ended_ = &block;
  }

 private:
  HostLaunch launch_;
  const std::function<void(uint8_t*)>& body_;
  std::mt19937_64 random_;
  std::vector<Block> blocks_;
  std::vector<Fiber*> runnable_;
  Block* ended_ = nullptr;
  ucontext_t scheduler_ = {};
  std::string wrong_;
  int next_block_ = 0;
  int unfinished_ = 0;
  int idle_turns_ = 0;
};

// Waits for the whole warp; `work` then sees every lane's operands.
template <typename Work>
void meet_warp(Meeting kind, const Operands& mine, Work&& work) {
  Block& block = the_grid->block();
  const size_t thread = static_cast<size_t>(the_fiber->thread);
  block.operands[thread] = mine;
  Operands* const lanes = &block.operands[thread / kWarp * kWarp];
  the_grid->meet(block.warps[thread / kWarp], kWarp, kind, [&] { work(lanes); });
}

float half_at(uint32_t two, int which) { return half_to_float(static_cast<uint16_t>(two >> (16 * which))); }
float bfloat16_at(uint32_t two, int which) { return bfloat16_to_float(static_cast<uint16_t>(two >> (16 * which))); }

// The nearest fp32 that is not farther from zero.
float cut_off(double value) {
  const float nearest = static_cast<float>(value);
  if (!std::isfinite(nearest) || std::fabs(static_cast<double>(nearest)) <= std::fabs(value)) return nearest;
  return std::nextafter(nearest, 0.0f);
}

template <typename At>
void multiply_fragments(Operands* lanes, At&& at) {
  double a[16][16];
  double b[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < 2; ++i)
        a[g + r % 2 * 8][2 * t + i + r / 2 * 8] = static_cast<double>(at(lanes[lane].a[r], i));
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < 2; ++i) b[2 * t + i + r * 8][g] = static_cast<double>(at(lanes[lane].b[r], i));
  }
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int column = lane % 4 * 2 + i % 2;
      double sum = static_cast<double>(lanes[lane].c[i]);
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      lanes[lane].c[i] = cut_off(sum);
    }
}

}  // namespace

std::string run_grid(const HostLaunch& launch, const std::function<void(uint8_t*)>& body) {
  if (launch.threads % kWarp != 0) return "a block has whole warps";
  return Grid(launch, body).run();
}

int thread_index() { return the_fiber->thread; }
int block_index() { return the_fiber->block; }
int grid_blocks() { return the_grid->launch().blocks; }
int block_threads() { return the_grid->launch().threads; }

void sync_block() {
  the_grid->meet(the_grid->block().barrier, static_cast<size_t>(block_threads()), Meeting::kBlock, [] {});
}

void sync_warp() {
  meet_warp(Meeting::kWarp, {}, [](Operands*) {});
}

float shuffle_xor(float value, int mask) {
  Operands mine = {};
  float result = 0;
  mine.value = value;
  mine.mask = mask;
  mine.c = &result;
  meet_warp(Meeting::kShuffle, mine, [](Operands* lanes) {
    for (int lane = 0; lane < kWarp; ++lane) *lanes[lane].c = lanes[lane ^ lanes[lane].mask].value;
  });
  return result;
}

void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  meet_warp(Meeting::kMmaF16, {c, a, b, 0, 0}, [](Operands* lanes) { multiply_fragments(lanes, half_at); });
}

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  meet_warp(Meeting::kMmaBf16, {c, a, b, 0, 0}, [](Operands* lanes) { multiply_fragments(lanes, bfloat16_at); });
}

void pause_spin() { the_grid->yield(); }

void check_aligned(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes != 0) the_grid->report("a load is not aligned");
}

void copy_async16(void* shared, const void* from) {
  check_aligned(shared, 16);
  check_aligned(from, 16);
  if (the_grid->coin())
    std::memcpy(shared, from, 16);
  else
    the_fiber->copies.push_back({shared, from, the_fiber->copy_groups});
}

void commit_copies() { ++the_fiber->copy_groups; }

void wait_copies(int newer) {
  std::vector<Copy>& copies = the_fiber->copies;
  const auto arrives = [&](const Copy& copy) { return copy.group < the_fiber->copy_groups - newer; };
  for (const Copy& copy : copies)
    if (arrives(copy)) std::memcpy(copy.to, copy.from, 16);
  std::erase_if(copies, arrives);
}

uint32_t publish(uint32_t* counter) {
  the_grid->yield();
  return (*counter)++;
}

}  // namespace lutra::cuda
