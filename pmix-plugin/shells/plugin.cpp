// SPDX-License-Identifier: BSD-3-Clause
#include "pmix-plugin/shells/plugin.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unistd.h>

#include "base/log.hpp"
#include "pmix-plugin/coordinator/coordinator.hpp"
#include "pmix-plugin/events/files.hpp"
#include "pmix-plugin/settings/job_settings.hpp"
#include "pmix-plugin/settings/parameters.hpp"
#include "pmix-plugin/node/node_agent.hpp"
#include "pmix-plugin/runtime/orte41/adapter.hpp"
#include "pmix-plugin/streams/node_streams.hpp"
#include "pmix-plugin/streams/stream_roster.hpp"

namespace {

using namespace ghost;
using namespace ghost::plugin;

// Members are destroyed from the last to the first: the adapter goes when nobody uses it any more.
struct Plugin {
    orte41::Orte4Adapter adapter;
    std::unique_ptr<NodeStreams> streams;  // unless they are switched off
    std::unique_ptr<StreamRoster> roster;  // in mpirun
    std::unique_ptr<NodeAgent> agent;
    std::unique_ptr<Coordinator> coordinator;
};

std::unique_ptr<Plugin>& instance() {
    static std::unique_ptr<Plugin> the_plugin;
    return the_plugin;
}

bool start_posted = false;

constexpr int64_t beats = 10;  // while a node is silent that is lost then

std::string own_name(const RuntimeAdapter& adapter) {
    return (adapter.is_coordinator() ? "mpirun" : "daemon ") +
           (adapter.is_coordinator() ? std::string() : std::to_string(adapter.self()));
}

void report(const char* what, const Status& status) {
    if (!status.ok()) log::error("{}: {}", what, status.error().message());
}

void start() {
    if (!start_posted || instance()) return;
    instance() = std::make_unique<Plugin>();
    Plugin& plugin = *instance();
    log::setup(own_name(plugin.adapter), log::level_from_environment());
    NodeSettings node;
    if (const std::string wrapper = plugin.adapter.wrapper(); !wrapper.empty())
        node.wrapper = wrapper;
    if (is_yes(plugin.adapter.parameter("ghost_streams").value_or("1"))) {
        plugin.streams = std::make_unique<NodeStreams>(plugin.adapter, NodeStreamsSettings{});
        node.tied = [streams = plugin.streams.get()](pid_t init) {
            return streams->why_tied(init);
        };
        if (plugin.adapter.is_coordinator())
            plugin.roster = std::make_unique<StreamRoster>(plugin.adapter, StreamRosterSettings{});
    }
    node.looks_for_sharers = geteuid() != 0;
    node.recovers = recovers(plugin.adapter);
    if (node.recovers && !plugin.adapter.is_coordinator())
        node.beat_us = dead_after_us(plugin.adapter) / beats;
    plugin.agent = std::make_unique<NodeAgent>(plugin.adapter, node);
    if (plugin.adapter.is_coordinator()) {
        CoordinatorSettings settings;
        auto events = events_folder(plugin.adapter.parameter("ghost_events"));
        if (!events.ok()) log::info("no event log is kept: {}", events.error().message());
        if (events.ok()) settings.events = *events;
        // What is not answered shows that a node is cut off: so there must be something.
        if (const int64_t beat_us = dead_after_us(plugin.adapter) / beats;
            node.recovers && beat_us > 0)
            settings.ping_us = std::min(settings.ping_us, beat_us);
        plugin.coordinator = std::make_unique<Coordinator>(plugin.adapter, std::move(settings));
        report("coordinator", plugin.coordinator->start());
    }
    report("node agent", plugin.agent->start());
    if (plugin.roster) plugin.roster->start();
    if (plugin.streams) plugin.streams->start();
    plugin.adapter.on_launch([agent = plugin.agent.get(), streams = plugin.streams.get()] {
        report("node agent", agent->listen_now());
        if (streams) streams->listen_now();
    });
    log::debug("ghost is up");
}

}  // namespace

int ghost_plugin_wanted(void) noexcept {
    const char* on = getenv("OMPI_MCA_ghost");
    const char* off = getenv("OMPI_MCA_ghost_disabled");
    if (!on || !is_yes(on) || (off && is_yes(off)) || !orte41::runs_here()) return 0;
    if (std::strncmp(orte41::version(), "4.1.", 4) == 0) return 1;
    ghost_plugin_refuse("Open MPI", orte41::version(), "4.1");
    return 0;
}

void ghost_plugin_refuse(const char* library, const char* version, const char* needed) noexcept {
    orte41::show_message("wrong version", library, version, needed);
}

void ghost_plugin_start(void) noexcept {
    if (start_posted) return;
    start_posted = true;
    orte41::complete_own_name();
    orte41::post_to_orte(start);
}

void ghost_plugin_stop(void) noexcept {
    start_posted = false;
    if (!instance()) return;
    if (instance()->coordinator) instance()->coordinator->stop();
    instance()->agent->stop();
    if (instance()->streams) instance()->streams->stop();
    if (instance()->roster) instance()->roster->stop();
    instance().reset();
}
