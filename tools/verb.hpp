// What the verbs of `ghost` share: how one is declared, and how it reports.
// Exit status (all verbs): 0 done; 1 refused or failed with the job unharmed; 2 usage; 3 the job
// was harmed. Results go to standard output, everything else to standard error.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.hpp"

namespace ghost::tools {

using Json = nlohmann::json;

inline constexpr int exit_done = 0;
inline constexpr int exit_unharmed = 1;
inline constexpr int exit_usage = 2;
inline constexpr int exit_harmed = 3;

// One verb: its name and help, and the function that adds its options and, as the callback of its
// CLI::App, its action, which sets exit_status.
struct Verb {
    const char* name;
    const char* help;
    void (*define)(CLI::App& app, int& exit_status);
};

void define_env(CLI::App& app, int& exit_status);
void define_ps(CLI::App& app, int& exit_status);
void define_migrate(CLI::App& app, int& exit_status);
void define_doctor(CLI::App& app, int& exit_status);
void define_params(CLI::App& app, int& exit_status);
void define_lab(CLI::App& app, int& exit_status);
void define_run(CLI::App& app, int& exit_status);
void define_export(CLI::App& app, int& exit_status);
void define_import(CLI::App& app, int& exit_status);
void define_checkpoint(CLI::App& app, int& exit_status);
void define_restart(CLI::App& app, int& exit_status);
void define_snapshots(CLI::App& app, int& exit_status);
void define_gather(CLI::App& app, int& exit_status);
void define_holder(CLI::App& app, int& exit_status);
void define_dup(CLI::App& app, int& exit_status);
void define_receive(CLI::App& app, int& exit_status);
void define_inspect(CLI::App& app, int& exit_status);
void define_verify(CLI::App& app, int& exit_status);
void define_merge(CLI::App& app, int& exit_status);

// Adds --json to a verb and returns where it is kept (shared with the app's callbacks).
std::shared_ptr<bool> add_json(CLI::App& app);

// Prints one JSON object on standard output.
void print_json(const Json& object);
// Says what failed ("ghost: cannot …"; with json also {"error", "exit"}) and returns the exit
// status.
int report(const Error& error, bool json, int exit_status);
// The same with the exit status that the error's code asks for: 2 for invalid, else 1.
int report(const Error& error, bool json);

}  // namespace ghost::tools
