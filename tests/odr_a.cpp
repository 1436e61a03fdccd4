#include <ferry/ferry.hpp>

const char* odr_a() { return FERRY_VERSION_STRING; }
