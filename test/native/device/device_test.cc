// What opening the backend answers where there is none, or something else.
#include "device/device.h"

#include <cstring>

#include "../harness.h"

using namespace lutra;

LUTRA_TEST(device, an_object_that_is_not_there_is_not_built) {
  DeviceReport report;
  CHECK(!device_table("/nowhere/lutra_cuda.so", 0, &report));
  CHECK(report.state == DeviceState::kNotBuilt);
  CHECK(!std::strcmp(report.path, "/nowhere/lutra_cuda.so"));
}

LUTRA_TEST(device, an_object_that_does_not_open_is_unusable) {
  DeviceReport report;
  CHECK(!device_table("/proc/self/status", 0, &report));
  CHECK(report.state == DeviceState::kUnusable);
  CHECK(report.detail[0] != '\0');
  // An executable's own libraries hold no backend either.
  CHECK(!device_table("libm.so.6", 0, &report));
}

LUTRA_TEST(device, the_object_is_looked_for_beside_this_code) {
  DeviceReport report;
  device_table(nullptr, 0, &report);
  const char* const slash = std::strrchr(report.path, '/');
  CHECK(slash && !std::strcmp(slash, "/lutra_cuda.so"));
}
