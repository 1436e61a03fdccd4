// Seconds, and the shares of many.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace bench {

using clock = std::chrono::steady_clock;

inline double seconds_since(clock::time_point from) {
    return std::chrono::duration<double>(clock::now() - from).count();
}

/// The share, from 0 to 1, of the sorted values; the median for 0.5. Between two values, what lies between them. 0
/// where there are none.
inline double share_of(std::vector<double> values, double share) {
    if (values.empty()) return 0;
    const double place = share * static_cast<double>(values.size() - 1);
    const auto at = static_cast<std::size_t>(place);
    const auto here = values.begin() + static_cast<std::ptrdiff_t>(at);
    std::nth_element(values.begin(), here, values.end());
    if (here + 1 == values.end()) return *here;
    return *here + (place - static_cast<double>(at)) * (*std::min_element(here + 1, values.end()) - *here);
}

}  // namespace bench
