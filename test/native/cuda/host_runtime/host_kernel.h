// What a pointer to a kernel leads to on the host.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra::test {

struct HostKernel {
  size_t argument_bytes;
  size_t shared_bytes;  // besides what the launch asks for
  void (*run)(const void* arguments, uint8_t* shared);
};

}  // namespace lutra::test
