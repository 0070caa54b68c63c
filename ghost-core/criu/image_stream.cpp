// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/criu/image_stream.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/descriptor_message.hpp"
#include "ghost-core/format/format.hpp"
#include "ghost-core/criu/protobuf.hpp"

namespace ghost::core {
namespace {

constexpr timeval patience{5, 0};

Error talk_error() {
    return sys_error("talk to criu");
}

}  // namespace

Status CriuSocket::listen(const std::string& folder, const std::string& name) {
    Fd dir(open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!dir) return sys_error("open work folder", folder);
    unlinkat(dir.get(), name.c_str(), 0);
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return sys_error("make socket", name);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto path = fmt::format("/proc/self/fd/{}/{}", dir.get(), name);
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd.get(), 4) != 0)
        return sys_error("listen at", folder + "/" + name);
    *this = {};
    listener_ = std::move(fd);
    return {};
}

Result<bool> CriuSocket::take() {
    if (connected_) return true;
    connection_.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection_) return talk_error();
    setsockopt(connection_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(connection_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    connected_ = true;
    return false;
}

Result<bool> receive_exactly(int connection, void* data, size_t size) {
    auto* at = static_cast<char*>(data);
    for (size_t done = 0; done < size;) {
        const auto got = recv(connection, at + done, size - done, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return talk_error();
        if (got == 0 && done == 0) return false;
        if (got == 0) return make_error(Code::peer_lost, "talk to criu", {}, "it hung up");
        done += static_cast<size_t>(got);
    }
    return true;
}

Result<std::string> read_image_request(int connection) {
    uint32_t size = 0;
    auto there = receive_exactly(connection, &size, sizeof size);
    if (!there) return there.error();
    if (!*there) return std::string();
    std::string message(size <= 2 * name_limit ? size : 0, '\0');
    if (message.empty()) return make_error(Code::corrupt, "read criu's request");
    there = receive_exactly(connection, message.data(), message.size());
    if (!there) return there.error();
    ProtoReader reader(message);
    const auto field = reader.next();
    if (!*there || !field || field->number != 1 || field->text.empty())
        return make_error(Code::corrupt, "read criu's request");
    return std::string(field->text);
}

Status answer_image_request(int connection, bool exists) {
    struct {
        uint32_t size = 2;
        unsigned char tag = 8;  // field 1, a number
        unsigned char value = 0;
    } __attribute__((packed)) answer;
    answer.value = exists ? 1 : 0;
    if (send(connection, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
        return talk_error();
    return {};
}

Result<Fd> receive_descriptor(int connection) {
    char byte = 0;
    auto got = receive_with_descriptor(connection, &byte, 1);
    if (got.size < 0) return talk_error();
    if (!got.fd) return make_error(Code::peer_lost, "talk to criu", {}, "no descriptor came");
    return std::move(got.fd);
}

}  // namespace ghost::core
