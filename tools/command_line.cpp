// SPDX-License-Identifier: BSD-3-Clause
#include "tools/command_line.hpp"

#include <CLI/CLI.hpp>
#include <utility>

namespace ghost::tools {

const CommandOption& CommandOption::required() const {
    option_->required();
    return *this;
}

const CommandOption& CommandOption::one_of(const std::vector<std::string>& words) const {
    option_->check(CLI::IsMember(words));
    return *this;
}

const CommandOption& CommandOption::delimiter(char between) const {
    option_->delimiter(between);
    return *this;
}

const CommandOption& CommandOption::expected(int words) const {
    option_->expected(words);
    return *this;
}

const CommandOption& CommandOption::take_all() const {
    option_->take_all();
    return *this;
}

const CommandOption& CommandOption::hidden() const {
    option_->group("");
    return *this;
}

CommandOption CommandLine::add_option(const std::string& name, std::string& target,
                                      const std::string& help) const {
    return CommandOption(*app_->add_option(name, target, help));
}

CommandOption CommandLine::add_option(const std::string& name, std::vector<std::string>& target,
                                      const std::string& help) const {
    return CommandOption(*app_->add_option(name, target, help));
}

CommandOption CommandLine::add_option(const std::string& name, int& target,
                                      const std::string& help) const {
    return CommandOption(*app_->add_option(name, target, help));
}

CommandOption CommandLine::add_option(const std::string& name, std::vector<int>& target,
                                      const std::string& help) const {
    return CommandOption(*app_->add_option(name, target, help));
}

void CommandLine::add_flag(const std::string& name, bool& target, const std::string& help) const {
    app_->add_flag(name, target, help);
}

CommandLine CommandLine::add_subcommand(const std::string& name, const std::string& help) const {
    return CommandLine(*app_->add_subcommand(name, help));
}

void CommandLine::hide() const {
    app_->group("");
}

void CommandLine::require_subcommand() const {
    app_->require_subcommand(1);
}

void CommandLine::prefix_command() const {
    app_->prefix_command();
}

void CommandLine::footer(const std::string& text) const {
    app_->footer(text);
}

void CommandLine::before_action(std::function<int()> refusal) const {
    app_->parse_complete_callback([refusal = std::move(refusal)] {
        if (const int status = refusal(); status != 0) throw CLI::RuntimeError(status);
    });
}

void CommandLine::callback(std::function<void()> action) const {
    app_->callback(std::move(action));
}

bool CommandLine::is_given(const std::string& name) const {
    return app_->count(name) > 0;
}

std::vector<std::string> CommandLine::remaining() const {
    return app_->remaining();
}

}  // namespace ghost::tools
