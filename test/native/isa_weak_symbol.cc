// An object that isa_objects.sh must refuse: an inline function with external linkage leaves a weak symbol.
namespace lutra::test {

inline __attribute__((noinline)) int leaks(int value) { return value + 1; }
int uses_it(int value) { return leaks(value); }

}  // namespace lutra::test
