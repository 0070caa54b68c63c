// SPDX-License-Identifier: BSD-3-Clause
// Writes manifests of snapshots for wrapper_snapshot.py: reads {"folder", "name", "ranks": [row],
// "files": [{path, size, ranks, copy}], "sign": BYTE} from standard input. A row has rank, file,
// kind, chain, digest, signer. Signed with the key of a seed of such bytes, which it prints, if it
// is not 0.
#include <cstdio>
#include <iostream>

#include "pmix-plugin/snapshots/manifest.hpp"

int main() {
    using namespace ghost::plugin;
    ghost::Json in = ghost::Json::parse(std::cin, nullptr, false);
    Manifest out;
    out.name = in.value("name", "");
    out.time = utc_now();
    out.kind = "full";
    out.job.name = out.name.substr(0, out.name.find('-'));
    out.apps.push_back({{"probe"}, 0, "/"});
    out.nodes.push_back({0, "here", 8});
    for (const auto& row : in["ranks"]) {
        Manifest::Rank rank;
        rank.rank = row.value("rank", 0u);
        rank.node = "here";
        rank.file = row.value("file", "");
        rank.kind = row.value("kind", "full");
        rank.chain = row.value("chain", std::vector<std::string>());
        rank.digest = row.value("digest", "");
        rank.bytes = row.value("bytes", uint64_t{0});
        if (const auto signer = row.value("signer", ""); !signer.empty()) rank.signer = signer;
        if (rank.kind != "full") out.kind = rank.kind;
        out.ranks.push_back(std::move(rank));
        ++out.apps[0].np;
    }
    for (const auto& file : in["files"]) {
        Manifest::File& one = out.files.emplace_back();
        one.path = file.value("path", "");
        one.size = file.value("size", uint64_t{0});
        one.ranks = file.value("ranks", std::vector<uint32_t>());
        if (file.contains("copy"))
            one.copy = {file["copy"].value("rank", 0u), file["copy"].value("size", uint64_t{0}),
                        file["copy"].value("hash", "")};
    }
    if (const auto byte = in.value("sign", uint8_t{0}); byte != 0) {
        std::array<unsigned char, ghost::SigningKey::seed_size> seed{};
        seed.fill(byte);
        const ghost::SigningKey key(seed);
        if (auto made = sign_manifest(out, key, ""); !made)
            return std::fprintf(stderr, "%s\n", made.error().message().c_str()), 1;
        std::puts(key.public_key().hex().c_str());
    }
    auto written = write_manifest(in.value("folder", ""), out);
    if (!written) std::fprintf(stderr, "%s\n", written.error().message().c_str());
    return written ? 0 : 1;
}
