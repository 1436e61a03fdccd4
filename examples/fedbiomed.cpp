// A researcher and a node that speak Fed-BioMed's messages: the node answers a SearchRequest by a SearchReply, in which it
// describes a data set by a tuple and an np.ndarray.
#include <ferry/ferry.hpp>

#include <chrono>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace fedbiomed = ferry::fedbiomed;

void answer(const ferry::task& task) {
    if (fedbiomed::class_of(task.message()) != "SearchRequest") {
        task.reply(fedbiomed::failure_of(task.message(), "node-1", "Hospital", "this node can only search"));
        return;
    }
    const auto request = fedbiomed::parse<fedbiomed::search_request>(task.message());
    ferry::message database;
    database["tags"] = request.tags;
    database["shape"] = fedbiomed::tuple({569, 3});
    database["means"] = fedbiomed::ndarray(std::vector<float>{14.1F, 19.3F, 92.0F}, {3});
    task.reply(reply_to(task.message(), fedbiomed::search_reply{{std::move(database)}, 1, "Hospital"}));
}

int main() {
    using namespace std::chrono_literals;

    ferry::server_options options;
    options.port = 0;
    options.ssl = ferry::plain_text{};
    options.wait_for_first_node = false;
    ferry::grpc_server server(options);
    server.start();

    ferry::client_options dial;
    dial.node_id = "node-1";
    dial.researchers = {{"localhost", server.port(), ferry::plain_text{}}};
    ferry::grpc_client node(dial, answer);
    node.start();
    server.wait_for_nodes(1, 10s);

    const fedbiomed::search_request search{{"breast cancer"}};
    const auto reply = server.request(to_message(search, "researcher-1"), "node-1").get();
    if (!reply) throw ferry::error(reply.how.reason, reply.how.text);
    const auto found = fedbiomed::parse<fedbiomed::search_reply>(reply.message);
    const auto means = fedbiomed::as_array<float>(found.databases.at(0).at("means"));
    for (const float mean : means.values()) std::cout << mean << "\n";
    return found.count == 1 && means.values().size() == 3 ? 0 : 1;
}
