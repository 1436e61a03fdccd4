// Two translation units with all of ferry, linked into one program: a function that is not inline fails to link.
#include <string_view>

const char* odr_a();
const char* odr_b();

int main() { return std::string_view{odr_a()} == odr_b() ? 0 : 1; }
