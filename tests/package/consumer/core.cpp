// A message to msgpack and back, with nothing of gRPC.
#include <ferry/serializer/msgpack.hpp>

#include <iostream>

int main() {
    const ferry::message sent = {{"name", "ferry"}, {"numbers", {1, 2.5, -3}}};
    const ferry::msgpack_serializer<> format;
    const auto received = format.decode(format.encode(sent).flatten());
    std::cout << "decoded " << received << "\n";
    return received == sent ? 0 : 1;
}
