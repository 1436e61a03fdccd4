// A progress bar a line: redrawn in place where the standard output is a terminal, else a plain line at each quarter.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace example {

class progress_bars {
public:
    explicit progress_bars(std::vector<std::string> names) {
        for (auto& name : names) {
            name_width_ = std::max(name_width_, static_cast<int>(name.size()));
            lines_.push_back({std::move(name), {}, 0, 0, 0});
        }
        winsize window{};
        in_place_ = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > lines_.size() &&
                    window.ws_col > name_width_ + bar_width + text_width;
    }

    /// How far line `i` is, in megabytes, with a word on what it does. `draw` shows it.
    void set(std::size_t i, double done, double total, std::string state) {
        lines_[i].done = done;
        lines_[i].percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
        lines_[i].state = std::move(state);
    }

    void draw() {
        if (in_place_ && drawn_) std::printf("\033[%zuA", lines_.size());
        for (auto& line : lines_) in_place_ ? draw_bar(line) : print_quarter(line);
        drawn_ = true;
        std::fflush(stdout);
    }

private:
    static constexpr int bar_width = 32;
    static constexpr int text_width = 36;

    struct line {
        std::string name, state;
        double done;
        int percent;
        int printed_quarter;
    };

    void draw_bar(const line& line) const {
        std::string bar(static_cast<std::size_t>(line.percent * bar_width / 100), '#');
        bar.resize(bar_width, '.');
        std::printf("\r  %-*s  [%s] %3d %%  %5.0f MB  %s\033[K\n", name_width_, line.name.c_str(), bar.c_str(),
                    line.percent, line.done, line.state.c_str());
    }

    void print_quarter(line& line) const {
        const int quarter = line.percent / 25;
        if (quarter <= line.printed_quarter) return;
        line.printed_quarter = quarter;
        std::printf("  %-*s  %3d %%  %5.0f MB sent\n", name_width_, line.name.c_str(), line.percent, line.done);
    }

    std::vector<line> lines_;
    int name_width_ = 0;
    bool in_place_ = false;
    bool drawn_ = false;
};

}  // namespace example
