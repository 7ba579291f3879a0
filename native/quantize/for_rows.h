// Work on the rows of a matrix that do not depend on each other: any number of lanes gives the same result.
#pragma once

#include <algorithm>

#include "core/checked.h"
#include "core/status.h"
#include "ops/context.h"

namespace lutra {

template <typename Body>
Status for_rows(Context& context, int64_t rows, Body&& body) {
  constexpr int64_t kRowsAPart = 16;
  const bool finished = context.parallel(ceil_div(rows, kRowsAPart), [&](int64_t part) {
    const int64_t end = std::min(rows, (part + 1) * kRowsAPart);
    for (int64_t row = part * kRowsAPart; row < end; ++row) body(row);
  });
  return finished ? ok_status() : error(Code::kCancelled, "cancelled");
}

}  // namespace lutra
