#include <ferry/ferry.hpp>

const char* odr_b() { return FERRY_VERSION_STRING; }
