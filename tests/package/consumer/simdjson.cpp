// A message as JSON and back, read by simdjson: ferry::simdjson brings ferry's header and the library.
#include <ferry/serializer/simdjson.hpp>

#include <iostream>

int main() {
    const ferry::simdjson_serializer<> format;
    const ferry::message sent = {{"answer", 42}, {"data", ferry::bytes{1, 2, 3}}};
    const auto text = format.encode(sent).flatten();
    std::cout << "carried " << text.view() << "\n";
    return format.decode(text) == sent ? 0 : 1;
}
