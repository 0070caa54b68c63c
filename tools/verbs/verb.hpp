// SPDX-License-Identifier: BSD-3-Clause
// What the verbs of `ghost` share: how one is declared, and how it reports.
// Exit status (all verbs): 0 done; 1 refused or failed with the job unharmed; 2 usage; 3 the job
// was harmed. Results go to standard output, everything else to standard error.
#pragma once

#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/json.hpp"
#include "tools/command_line.hpp"

namespace ghost::tools {

using Json = nlohmann::json;

inline constexpr int exit_done = 0;
inline constexpr int exit_unharmed = 1;
inline constexpr int exit_usage = 2;
inline constexpr int exit_harmed = 3;

// One verb: its name and help, and the function that adds its options and, as the callback of its
// CommandLine, its action, which sets exit_status.
struct Verb {
    const char* name;
    const char* help;
    void (*define)(CommandLine app, int& exit_status);
};

void define_env(CommandLine app, int& exit_status);
void define_top(CommandLine app, int& exit_status);
void define_report(CommandLine app, int& exit_status);
void define_ps(CommandLine app, int& exit_status);
void define_migrate(CommandLine app, int& exit_status);
void define_drain(CommandLine app, int& exit_status);
void define_grow(CommandLine app, int& exit_status);
void define_cancel(CommandLine app, int& exit_status);
void define_doctor(CommandLine app, int& exit_status);
void define_params(CommandLine app, int& exit_status);
void define_lab(CommandLine app, int& exit_status);
void define_run(CommandLine app, int& exit_status);
void define_export(CommandLine app, int& exit_status);
void define_import(CommandLine app, int& exit_status);
void define_checkpoint(CommandLine app, int& exit_status);
void define_restart(CommandLine app, int& exit_status);
void define_snapshots(CommandLine app, int& exit_status);
void define_supervise(CommandLine app, int& exit_status);
void define_gather(CommandLine app, int& exit_status);
void define_holder(CommandLine app, int& exit_status);
void define_dup(CommandLine app, int& exit_status);
void define_receive(CommandLine app, int& exit_status);
void define_inspect(CommandLine app, int& exit_status);
void define_verify(CommandLine app, int& exit_status);
void define_merge(CommandLine app, int& exit_status);
void define_key(CommandLine app, int& exit_status);

// Adds --json to a verb and returns where it is kept (shared with the app's callbacks).
std::shared_ptr<bool> add_json(CommandLine app);

// As it is printed; bytes that are no UTF-8 are replaced.
std::string json_lines(const Json& object);
// Prints one JSON object on standard output.
void print_json(const Json& object);
// Says what failed ("ghost: cannot …"; with json also {"error", "exit"}) and returns the exit
// status.
int report(const Error& error, bool json, int exit_status);
// The same with the exit status that the error's code asks for: 2 for invalid, else 1.
int report(const Error& error, bool json);

}  // namespace ghost::tools
