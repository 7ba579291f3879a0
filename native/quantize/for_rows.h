// Work on the rows of a matrix that do not depend on each other: any number of lanes gives the same result.
#pragma once

#include <algorithm>

#include "core/checked.h"
#include "core/status.h"
#include "ops/context.h"

namespace lutra {

// Between parts a call may be cancelled.
template <typename Body>
Status for_rows(Context& context, int64_t rows, Body&& body, int64_t rows_a_part = 16) {
  const bool finished = context.parallel(ceil_div(rows, rows_a_part), [&](int64_t part) {
    const int64_t end = std::min(rows, (part + 1) * rows_a_part);
    for (int64_t row = part * rows_a_part; row < end; ++row) body(row);
  });
  return finished ? ok_status() : error(Code::kCancelled, "cancelled");
}

// The same for rows that take long each, as searches with many candidates a weight do.
template <typename Body>
Status for_long_rows(Context& context, int64_t rows, Body&& body) {
  return for_rows(context, rows, body, 1);
}

}  // namespace lutra
