// ferry's service in a gRPC server of one's own, beside another one: gRPC's health service, which a load balancer asks.
#include <ferry/ferry.hpp>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

/// Asks the health service at the same port, by its empty request.
grpc::Status check_health(const std::string& target) {
    grpc::GenericStub stub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    const grpc::Slice nothing;
    grpc::ByteBuffer request(&nothing, 1), response;
    std::promise<grpc::Status> answered;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                   [&](grpc::Status status) { answered.set_value(std::move(status)); });
    return answered.get_future().get();
}

int main() {
    using namespace std::chrono_literals;

    // readme: mounted
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("localhost:0", grpc::InsecureServerCredentials(), &port);
    ferry::server_options options;  // host, port and ssl are the builder's business now
    options.wait_for_first_node = false;
    ferry::grpc_server server(options);
    server.mount(builder);  // and builder.RegisterService(...) for services of your own
    const std::unique_ptr<grpc::Server> all = builder.BuildAndStart();
    server.start();
    // readme: end

    ferry::client_options dial;
    dial.node_id = "node-1";
    dial.researchers = {{"localhost", static_cast<std::uint16_t>(port), ferry::plain_text{}}};
    ferry::grpc_client node(dial, [](const ferry::task& task) {
        task.reply({{"hello", "from " + task.researcher()}});
    });
    node.start();
    server.wait_for_nodes(1, 10s);
    const auto reply = server.request({{"text", "hello"}}, "node-1").get();
    std::cout << "ferry: " << (reply ? reply.message.dump() : reply.how.text) << "\n";

    const auto health = check_health("localhost:" + std::to_string(port));
    std::cout << "health: " << (health.ok() ? "answers" : health.error_message()) << "\n";

    server.stop();  // first ferry, then the server that it is mounted in
    all->Shutdown();
    return reply && health.ok() ? 0 : 1;
}
