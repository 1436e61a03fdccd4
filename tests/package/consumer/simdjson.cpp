// The header that needs simdjson, and the library itself: ferry::simdjson brings both.
#include <ferry/serializer/simdjson.hpp>

#include <cstdint>
#include <iostream>
#include <string>

int main() {
    const std::string text = R"({"answer": 42})";
    simdjson::dom::parser parser;
    std::int64_t answer = 0;
    const auto failed = parser.parse(text)["answer"].get(answer);
    std::cout << "parsed " << answer << "\n";
    return !failed && answer == 42 ? 0 : 1;
}
