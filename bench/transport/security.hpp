// The key and certificate of the servers that are measured, made anew.
#pragma once

#include "../../tests/temporary_folder.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace bench {

/// For localhost, in a folder of this process that is gone with it.
class certificate {
public:
    certificate() {
        const auto command =
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
            "/CN=localhost -addext subjectAltName=DNS:localhost -keyout " +
            key() + " -out " + cert() + " 2>" + folder_.file("log");
        if (std::system(command.c_str()) != 0) throw std::runtime_error("openssl could not make a certificate");
    }

    std::string key() const { return folder_.file("key.pem"); }
    std::string cert() const { return folder_.file("cert.pem"); }

    static std::string read(const std::string& path) {
        std::ostringstream out;
        out << std::ifstream(path).rdbuf();
        return out.str();
    }

private:
    ferry_test::temporary_folder folder_;
};

}  // namespace bench
