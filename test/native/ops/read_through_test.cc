#include "ops/read_through.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

LUTRA_TEST(ops, read_through_takes_every_element_once) {
  Lanes one(1), three(3);
  for (int64_t count : {0, 1, 63, 64, 65, 1000, (1 << 18) + 777}) {
    Operand<int32_t> x({count});
    int32_t expected = 0;
    uint32_t state = 1;
    for (size_t i = 0; i < x.count(); ++i) {
      state = state * 1664525u + 1013904223u;
      x[i] = static_cast<int32_t>(state);
      expected ^= x[i];
    }
    int32_t found = -1, found3 = -1;
    CHECK(read_through(one.context, x.view, &found).ok());
    CHECK(read_through(three.context, x.view, &found3).ok());
    CHECK(found == expected && found3 == expected);
  }
}

LUTRA_TEST(ops, read_through_refuses) {
  Lanes lanes(1);
  Operand<float> x({4});
  int32_t mixed = 0;
  CHECK(read_through(lanes.context, x.view, &mixed).code == Code::kDtype);
}
