// The key and certificate of the servers that are measured, made anew.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace bench {

/// For localhost, in a folder of this process that is gone with it.
class certificate {
public:
    certificate() {
        std::string name = (std::filesystem::temp_directory_path() / "ferry-bench-XXXXXX").string();
        if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
        folder_ = name;
        const auto command =
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
            "/CN=localhost -addext subjectAltName=DNS:localhost -keyout " +
            key() + " -out " + cert() + " 2>" + folder_ + "/log";
        if (std::system(command.c_str()) != 0) throw std::runtime_error("openssl could not make a certificate");
    }
    certificate(const certificate&) = delete;
    certificate& operator=(const certificate&) = delete;
    ~certificate() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }

    std::string key() const { return folder_ + "/key.pem"; }
    std::string cert() const { return folder_ + "/cert.pem"; }

    static std::string read(const std::string& path) {
        std::ostringstream out;
        out << std::ifstream(path).rdbuf();
        return out.str();
    }

private:
    std::string folder_;
};

}  // namespace bench
