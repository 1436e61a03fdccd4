// A serializer of one's own: messages as CBOR, by nlohmann's writer and reader. A NaN loses its payload on the way, and the
// reader recurses: its peers must be trusted. Whether a serializer is sound is tried by ferry/conformance/serializer.hpp.
#include <ferry/ferry.hpp>

#include <chrono>
#include <iostream>
#include <string_view>
#include <utility>

// readme: serializer
struct cbor_serializer {
    using policy_category = ferry::serializer_tag;
    using message_type = ferry::message;
    static constexpr std::string_view name = "cbor";

    ferry::payload encode(const ferry::message& m) const { return ferry::bytes::own(ferry::message::to_cbor(m)); }

    ferry::message decode(const ferry::bytes& run) const try {
        using json = nlohmann::json;  // whose binaries can grow, as the reader needs it
        return from(json::from_cbor(run.begin(), run.end(), true, true, json::cbor_tag_handler_t::store));
    } catch (const nlohmann::json::exception& e) {
        throw ferry::error(ferry::errc::decode_failed, e.what());
    }

private:
    static ferry::message from(nlohmann::json&& value) {
        if (!value.is_structured() && !value.is_binary()) return value;
        ferry::message out = value.is_array() ? ferry::message::array() : ferry::message::object();
        if (value.is_binary()) {
            auto& binary = value.get_binary();
            out = binary.has_subtype() ? ferry::message::binary({}, binary.subtype()) : ferry::message::binary({});
            static_cast<ferry::bytes&>(out.get_binary()) = ferry::bytes::own(std::move(binary));
        }
        if (value.is_array())
            for (auto& each : value) out.push_back(from(std::move(each)));
        if (value.is_object())
            for (auto& [key, each] : value.items()) out[key] = from(std::move(each));
        return out;
    }
};
// readme: end

int main() {
    const ferry::server_options options{.port = 0, .ssl = ferry::plain_text{}, .wait_for_first_node = false};
    ferry::basic_grpc_server<cbor_serializer> server(options);
    server.start();
    ferry::basic_grpc_client<cbor_serializer> node(
        {.node_id = "node-1", .researchers = {{"localhost", server.port(), ferry::plain_text{}}}},
        [](const ferry::task& task) {
            task.reply({{"weights", task.message().at("weights")}, {"loss", 0.25}});
        });
    node.start();
    server.wait_for_nodes(1, std::chrono::seconds(10));
    const ferry::bytes weights{1, 2, 3, 255};
    const auto reply = server.request({{"weights", weights}}, "node-1").get();
    std::cout << (reply ? reply.message.dump() : reply.how.text) << "\n";
    return reply && reply.message["weights"].get<ferry::bytes>() == weights && reply.message["loss"] == 0.25 ? 0 : 1;
}
