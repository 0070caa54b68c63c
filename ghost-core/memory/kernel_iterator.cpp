// SPDX-License-Identifier: BSD-3-Clause
#include "ghost-core/memory/kernel_iterator.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ghost::core {
namespace {

long bpf(int command, bpf_attr& attributes) {
    return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

std::atomic<KeptIterator*> newest = nullptr;  // each knows the one before it

Fd load(const char* name, uint32_t function, const KernelCode& code) {
    bpf_attr what{};
    what.prog_type = BPF_PROG_TYPE_TRACING;
    what.expected_attach_type = BPF_TRACE_ITER;
    what.attach_btf_id = function;
    what.insns = reinterpret_cast<uint64_t>(code.all().data());
    what.insn_cnt = static_cast<uint32_t>(code.all().size());
    what.license = reinterpret_cast<uint64_t>("Dual BSD/GPL");
    std::strncpy(what.prog_name, name, sizeof what.prog_name - 1);
    return Fd(static_cast<int>(bpf(BPF_PROG_LOAD, what)));
}

}  // namespace

void IteratorPlaces::find(KernelPlaces& kernel, const std::string& iterator,
                          std::string_view name) {
    const std::string context = "bpf_iter__" + iterator;
    kernel.function(function, "bpf_iter_" + iterator);
    kernel.offset(meta, context, {"meta"});
    kernel.offset(object, context, {name});
    kernel.offset(file, "bpf_iter_meta", {"seq"});
}

void KernelCode::add(int code, uint8_t to, uint8_t from, int offset, int value) {
    bpf_insn one{};
    one.code = static_cast<uint8_t>(code);
    one.dst_reg = to & 0xf;
    one.src_reg = from & 0xf;
    one.off = static_cast<int16_t>(offset);
    one.imm = value;
    code_.push_back(one);
}

KeptIterator::KeptIterator(const char* name) : name_(name), next_(newest.load()) {
    newest = this;
}

void KeptIterator::forked() {
    for (auto* one = newest.load(); one != nullptr; one = one->next_) {
        new (&one->mutex_) std::mutex;  // who held it is not here
        one->program_.reset();
    }
}

int KeptIterator::program(uint32_t function, const std::function<KernelCode()>& code) {
    static const int registered = pthread_atfork(nullptr, nullptr, forked);
    if (registered != 0) return -1;
    std::lock_guard lock(mutex_);
    if (!program_) program_ = load(name_, function, code());
    return program_.get();
}

std::vector<uint8_t> iterate(int program, pid_t pid) {
    bpf_iter_link_info one{};
    one.task.pid = static_cast<uint32_t>(pid);
    bpf_attr link{}, iterator{};
    link.link_create.prog_fd = static_cast<uint32_t>(program);
    link.link_create.attach_type = BPF_TRACE_ITER;
    link.link_create.iter_info = reinterpret_cast<uint64_t>(&one);
    link.link_create.iter_info_len = sizeof one;
    const Fd its(static_cast<int>(bpf(BPF_LINK_CREATE, link)));
    if (!its) return {};
    iterator.iter_create.link_fd = static_cast<uint32_t>(its.get());
    const Fd answers(static_cast<int>(bpf(BPF_ITER_CREATE, iterator)));
    if (!answers) return {};
    std::vector<uint8_t> text;
    for (size_t size = 0;;) {
        text.resize(size + (32 << 10));
        const auto got = read(answers.get(), &text[size], text.size() - size);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (got < 0) return {};
        text.resize(size += static_cast<size_t>(got));
        if (got == 0) return text;
    }
}

}  // namespace ghost::core
