// All of ferry, without the models that need SQLite, Redis, Prometheus or simdjson.
#pragma once

#include <ferry/agent_store.hpp>
#include <ferry/agent_store/memory.hpp>
#include <ferry/chunk.hpp>
#include <ferry/credentials.hpp>
#include <ferry/delivery.hpp>
#include <ferry/dispatch.hpp>
#include <ferry/error.hpp>
#include <ferry/feedback.hpp>
#include <ferry/grpc_client.hpp>
#include <ferry/grpc_server.hpp>
#include <ferry/intake.hpp>
#include <ferry/message.hpp>
#include <ferry/node_info.hpp>
#include <ferry/outcome.hpp>
#include <ferry/payload.hpp>
#include <ferry/policy.hpp>
#include <ferry/retry.hpp>
#include <ferry/serializer.hpp>
#include <ferry/serializer/msgpack.hpp>
#include <ferry/task.hpp>
#include <ferry/version.hpp>
#include <ferry/wire.hpp>
