// SPDX-License-Identifier: BSD-3-Clause
// What a verb of `ghost` takes from the command line: a few words of CLI11's, whose header alone
// takes longer to compile than a verb, so that only this and ghost.cpp include it.
//
// Both are handles that are copied freely; what they stand for lives as long as the parser.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace ghost::tools {

// One option or positional word. Every call returns the option itself.
class CommandOption {
  public:
    explicit CommandOption(CLI::Option& option) : option_(&option) {}
    const CommandOption& required() const;
    const CommandOption& one_of(const std::vector<std::string>& words) const;
    // One word may hold several, with this between them.
    const CommandOption& delimiter(char between) const;
    // So many words each time it is given.
    const CommandOption& expected(int words) const;
    // Given more than once: all are kept.
    const CommandOption& take_all() const;
    // Not listed by --help.
    const CommandOption& hidden() const;

  private:
    CLI::Option* option_;
};

class CommandLine {
  public:
    explicit CommandLine(CLI::App& app) : app_(&app) {}

    // `name`: "word" for a positional one, "--long" or "-s,--long". `target` gets the value when
    // the line is parsed, before the action; it outlives the parser.
    CommandOption add_option(const std::string& name, std::string& target,
                             const std::string& help = "") const;
    CommandOption add_option(const std::string& name, std::vector<std::string>& target,
                             const std::string& help = "") const;
    CommandOption add_option(const std::string& name, int& target,
                             const std::string& help = "") const;
    CommandOption add_option(const std::string& name, std::vector<int>& target,
                             const std::string& help = "") const;
    void add_flag(const std::string& name, bool& target, const std::string& help) const;
    CommandLine add_subcommand(const std::string& name, const std::string& help) const;
    void hide() const;  // from --help
    void require_subcommand() const;
    // Everything behind the words that are asked for is left as it is: remaining().
    void prefix_command() const;
    void footer(const std::string& text) const;

    // Called when all is parsed: anything but 0 ends the command with this status.
    void before_action(std::function<int()> refusal) const;
    void callback(std::function<void()> action) const;

    // In an action.
    bool is_given(const std::string& name) const;
    std::vector<std::string> remaining() const;

  private:
    CLI::App* app_;
};

}  // namespace ghost::tools
