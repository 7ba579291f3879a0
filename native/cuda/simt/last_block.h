// How blocks of one launch join what they made, in an order of their own choosing: the last one to come does it.
#pragma once

#include "cuda/simt/simt.h"

namespace lutra::cuda {

// True for the block that comes last of `count` at this counter, which it then sets to zero for the next launch. What
// the others wrote before they came is readable to all of its threads. `flag`: a word of shared memory.
LUTRA_DEVICE bool comes_last(uint32_t* counter, uint32_t count, uint32_t* flag) {
  sync_block();
  if (thread_index() == 0) {
    const bool last = publish(counter) + 1 == count;
    if (last) *counter = 0;
    *flag = last ? 1u : 0u;
  }
  sync_block();
  const bool last = *flag != 0;
  if (last) after_look();
  return last;
}

}  // namespace lutra::cuda
