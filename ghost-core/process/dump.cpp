#include "ghost-core/process/dump.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <list>
#include <map>
#include <poll.h>
#include <sys/socket.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "ghost-core/process/child.hpp"
#include "ghost-core/process/criu_images.hpp"
#include "ghost-core/process/criu_program.hpp"
#include "ghost-core/process/image_stream.hpp"
#include "ghost-core/process/proc.hpp"
#include "ghost-core/process/standstill.hpp"
#include "ghost-core/process/tree.hpp"

namespace ghost::core {
namespace {

constexpr const char* capture_socket = "streamer-capture.sock";
constexpr size_t piece_bytes = 256 * 1024;
constexpr int64_t second_us = 1000000;

// An image file on its way from criu.
struct Image {
    int id = 0;
    Fd pipe;
    uint64_t size = 0;
    int owner = 0;        // of a page map, else 0
    std::string content;  // of a page map
};

class Dumper {
  public:
    Dumper(const DumpRequest& request, GhostWriter& writer) : request_(request), writer_(writer) {}

    Result<DumpResult> run();

  private:
    Status start();
    Status turn();
    Status take_request();
    Status take_bytes(Image& image);
    Status close_image(Image& image);
    void let_go();
    Error criu_failure() const;

    const DumpRequest& request_;
    GhostWriter& writer_;
    Fd listener_, connection_, server_;
    std::optional<Standstill> standstill_;
    std::optional<Child> criu_;
    std::list<Image> images_;
    int files_ = 0;
    int64_t deadline_ = 0;
    bool connected_ = false;
    std::vector<char> buffer_ = std::vector<char>(piece_bytes);
    std::map<int, std::vector<PageRun>> ranges_;
    DumpResult result_;
};

// Without our change criu keeps the lazy pages for a client of its page server and stays until that
// one has hung up: give it a connection whose other end is closed already.
Status add_closed_page_client(ChildRequest& child, Fd& server) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return sys_error("make socket pair");
    ::close(ends[1]);
    server.reset(ends[0]);
    child.descriptors = {server.get()};
    child.argv.insert(child.argv.end(), {"--ps-socket", "3"});
    return {};
}

Status Dumper::start() {
    auto program = find_program(request_.criu.program);
    if (!program) return program.error();
    auto listener = listen_in_folder(request_.criu.work_dir, capture_socket);
    if (!listener) return listener.error();
    listener_ = std::move(*listener);
    const int64_t begin = monotonic_us();
    auto standstill = Standstill::stop(request_.root, second_us);
    if (!standstill) return standstill.error();
    standstill_.emplace(std::move(*standstill));
    const int64_t standing = monotonic_us();
    ChildRequest child;
    child.folder = request_.criu.work_dir;
    child.argv = {*program,
                  "dump",
                  "--no-default-config",
                  "-t",
                  std::to_string(request_.root),
                  "-D",
                  ".",
                  "-o",
                  criu_log,
                  "-v1",
                  "--stream",
                  "--lazy-pages",
                  "--leave-stopped",
                  "--file-locks",
                  "--manage-cgroups=ignore",
                  "--network-lock",
                  "skip",
                  "--ghost-limit",
                  "1073741824"};
    for (const auto& key : request_.externals)
        if (!key.starts_with("pipe:")) {
            child.argv.insert(child.argv.end(), {"--external", key});
        }
    if (!request_.nested) child.argv.push_back("--shell-job");
    if (knows_lazy_holes(*program))
        child.environment = {"GHOST_LAZY_HOLES=1"};
    else
        GHOST_TRY(add_closed_page_client(child, server_));
    auto started = Child::start(child);
    if (!started) return started.error();
    criu_.emplace(std::move(*started));
    server_.reset();
    log::debug("freeze: the tree stands after {} us, criu is started {} us later", standing - begin,
               monotonic_us() - standing);
    deadline_ = monotonic_us() + request_.criu.limit_s * second_us;
    return {};
}

// One wait and whatever it brought.
Status Dumper::turn() {
    std::vector<pollfd> polls = {{criu_->ended() ? -1 : criu_->fd(), POLLIN, 0},
                                 {connected_ ? connection_.get() : listener_.get(), POLLIN, 0}};
    for (const auto& image : images_) polls.push_back({image.pipe.get(), POLLIN, 0});
    const int64_t left = deadline_ - monotonic_us();
    if (left <= 0) return make_error(Code::timeout, "freeze: criu does not get on");
    if (poll(polls.data(), polls.size(), static_cast<int>(left / 1000 + 1)) < 0 && errno != EINTR)
        return sys_error("wait for criu");
    size_t at = 2;
    for (auto image = images_.begin(); image != images_.end(); at++) {
        const auto next = std::next(image);
        if (polls[at].revents != 0) {
            GHOST_TRY(take_bytes(*image));
            if (!image->pipe) images_.erase(image);
        }
        image = next;
    }
    if (polls[1].revents != 0) GHOST_TRY(take_request());
    if (polls[0].revents != 0) criu_->wait(0);
    return {};
}

Status Dumper::take_request() {
    if (!connected_) {
        auto connection = accept_connection(listener_.get());
        if (!connection) return connection.error();
        connection_ = std::move(*connection);
        connected_ = true;
        log::debug("freeze: criu has connected");
        return {};
    }
    auto name = read_image_request(connection_.get());
    if (!name) return name.error();
    if (name->empty()) {
        connection_.reset();
        return {};
    }
    auto pipe = receive_descriptor(connection_.get());
    if (!pipe) return pipe.error();
    fcntl(pipe->get(), F_SETFL, O_NONBLOCK);
    fcntl(pipe->get(), F_SETPIPE_SZ, static_cast<int>(piece_bytes));
    Image image;
    image.id = files_++;
    image.pipe = std::move(*pipe);
    image.owner = pagemap_owner(*name);
    GHOST_TRY(writer_.skeleton_open(image.id, *name));
    images_.push_back(std::move(image));
    deadline_ = monotonic_us() + request_.criu.limit_s * second_us;
    return {};
}

Status Dumper::take_bytes(Image& image) {
    const auto got = read(image.pipe.get(), buffer_.data(), buffer_.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got < 0) return sys_error("read skeleton from criu");
    if (got == 0) return close_image(image);
    const auto size = static_cast<size_t>(got);
    GHOST_TRY(writer_.skeleton_data(image.id, image.size, buffer_.data(), size));
    if (image.owner != 0) image.content.append(buffer_.data(), size);
    image.size += size;
    result_.skeleton_bytes += size;
    deadline_ = monotonic_us() + request_.criu.limit_s * second_us;
    return {};
}

Status Dumper::close_image(Image& image) {
    image.pipe.reset();
    GHOST_TRY(writer_.skeleton_close(image.id, image.size));
    if (image.owner == 0) return {};
    auto ranges = lazy_ranges(image.content);
    if (!ranges) return ranges.error();
    if (!ranges->empty()) ranges_[image.owner] = std::move(*ranges);
    return {};
}

Error Dumper::criu_failure() const {
    return make_error(Code::refused,
                      fmt::format("freeze: criu: {}: {}", describe_status(criu_->status()),
                                  last_log_error(request_.criu.work_dir)));
}

// After a failure: criu gives up by itself when its pipes break and then leaves the tasks as they
// were, which is better than killing it. What a killed one leaves is put right.
void Dumper::let_go() {
    images_.clear();
    connection_.reset();
    listener_.reset();
    if (criu_ && !criu_->wait(monotonic_us() + second_us)) criu_->kill();
    if (auto free = wait_untraced(request_.root, second_us); !free.ok())
        log::warning("after a failed freeze: {}", free.error().message());
    if (standstill_)
        if (auto right = standstill_->repair(); !right.ok())
            log::warning("after a failed freeze: {}", right.error().message());
    if (auto resumed = resume_tree(request_.root); !resumed.ok())
        log::warning("after a failed freeze: {}", resumed.error().message());
}

Result<DumpResult> Dumper::run() {
    Status status = start();
    while (status.ok() && !(criu_->ended() && images_.empty() && !connection_)) {
        // criu that has ended without having connected will not come any more.
        if (criu_->ended() && !connected_) break;
        status = turn();
    }
    const auto socket = request_.criu.work_dir + "/" + capture_socket;
    unlink(socket.c_str());
    if (status.ok() && !criu_->succeeded()) status = criu_failure();
    if (status.ok()) {
        auto tasks = list_tree(request_.root);
        if (!tasks) return tasks.error();
        for (auto& [inner, ranges] : ranges_) {
            const auto task = std::find_if(tasks->begin(), tasks->end(),
                                           [&](const Task& t) { return t.inner == inner; });
            if (task == tasks->end()) {
                status =
                    make_error(Code::internal, "find process of skeleton", std::to_string(inner));
                break;
            }
            result_.pages.push_back({inner, task->pid, std::move(ranges)});
        }
    }
    if (!status.ok()) {
        let_go();
        return status.error();
    }
    for (const auto* name : {criu_log, "stats-dump"})
        unlink((request_.criu.work_dir + "/" + name).c_str());
    // The init is restored last: CRIU makes its memory ready only after that of its descendants.
    std::reverse(result_.pages.begin(), result_.pages.end());
    return std::move(result_);
}

}  // namespace

Result<DumpResult> dump_tree(const DumpRequest& request, GhostWriter& writer) {
    return Dumper(request, writer).run();
}

}  // namespace ghost::core
