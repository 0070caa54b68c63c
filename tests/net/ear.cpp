// SPDX-License-Identifier: BSD-3-Clause
#include "tests/net/ear.hpp"

#include <algorithm>

namespace nettest {

namespace {

// 0x88b5: kernet-btl/link/netdevice.cpp.
const char* const listener = R"(
import json, socket, sys
enough, text = int(sys.argv[1]), sys.argv[2].encode()
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
heard = {"tcp": 0, "udp": 0, "raw": 0}
found, told = False, 0
def kind_of(packet):
    if packet[12:14] == b"\x88\xb5":
        return "raw"
    if packet[12:14] not in (b"\x08\x00", b"\x86\xdd"):
        return None
    return {6: "tcp", 17: "udp"}.get(packet[23 if packet[12] == 8 else 20])
while sum(heard.values()) < enough and not found:
    packet, where = s.recvfrom(1 << 17)
    kind = kind_of(packet) if where[0] != "lo" and len(packet) > 34 else None
    if kind:
        heard[kind] += len(packet)
        found = text != b"" and text in packet
    if sum(heard.values()) >= told + 20000:
        told = sum(heard.values())
        print(told, flush=True)
print(json.dumps({**heard, "found": found}), flush=True)
)";

}  // namespace

Ear::Ear(Lab& lab, const std::string& node, uint64_t enough, const std::string& text)
    : ear_(lab.start_as_root(node, {"python3", "-c", listener, std::to_string(enough), text})) {}

// However slow the machine is: as long as it hears more.
Heard Ear::finish(double seconds) {
    const auto goes_on = [&] {
        const std::string before = ear_.out();
        return poll_until(seconds, [&] { return ear_.out() != before || !ear_.running(); });
    };
    while (ear_.running() && goes_on()) continue;
    const Finished end = ear_.finish(0);
    const size_t last = end.out.find('{');
    const Json said = Json::parse(end.out.substr(std::min(last, end.out.size())), nullptr, false);
    if (end.status != 0 || !said.is_object()) return {.text = end.out + end.err};
    return {said.value("tcp", uint64_t{0}), said.value("udp", uint64_t{0}),
            said.value("raw", uint64_t{0}), said.value("found", false), end.out};
}

}  // namespace nettest
