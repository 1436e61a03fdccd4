// A task in a journal on the disk: ferry::sqlite brings ferry's header and the library.
#include <ferry/agent_store/sqlite.hpp>

#include <unistd.h>

#include <future>
#include <iostream>
#include <memory>
#include <string>

int main() {
    const std::string file = "journals." + std::to_string(::getpid());
    std::promise<std::size_t> kept;
    {
        ferry::sqlite_agent_store store({.file = file});
        store.acquire("node", [&](ferry::acquired_journal mine) {
            ferry::task_record task;
            task.order = 1;
            task.content = std::make_shared<const ferry::payload>(ferry::bytes{1, 2, 3});
            store.append("node", mine.owner, task, [&](const ferry::store_status&) {
                store.acquire("node", [&](ferry::acquired_journal again) { kept.set_value(again.tasks.size()); });
            });
        });
    }
    const auto tasks = kept.get_future().get();
    std::cout << "carried " << tasks << " task\n";
    return tasks == 1 ? 0 : 1;
}
