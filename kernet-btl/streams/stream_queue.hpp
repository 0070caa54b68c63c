// SPDX-License-Identifier: BSD-3-Clause
// A socket of a FIFO or LIFO stream: several writers and readers, each message to one reader.
//
// A message stays with its writer until a reader has taken it. Writers tell the *orderer* what they
// have, readers what they want; it decides which message goes to whom, and the message goes
// straight from writer to reader. The orderer is the attached socket with the lowest number and
// holds nothing that is not said again to the next one, so it may move or end at any time. The
// writer alone decides that a message is given, once.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "kernet-btl/streams/stream_socket.hpp"

namespace kernet {

class QueueSocket final : public StreamSocket {
  public:
    QueueSocket(StreamHost& host, const Entry& entry, uint16_t number, size_t limit)
        : StreamSocket(host, entry, number, limit) {}

    void send(BodyPtr body) override;
    BodyPtr take() override;
    bool readable() const override { return !inbox_.empty(); }
    void wanted(size_t callers) override;
    Farewells farewells(bool suspended) const override;
    nlohmann::json save() const override;
    bool restore(const nlohmann::json& state) override;

  private:
    struct Item {
        uint64_t id = 0;    // the writer's number of the message
        int64_t stamp = 0;  // when it was sent, ns; grows
        BodyPtr body;
    };
    // A writer's way to one reader, in one of its incarnations.
    struct Lane {
        uint32_t incarnation = 0;
        bool ready = true;         // false: the reader has yet to say what it has received
        uint64_t given = 0;        // messages
        std::deque<Item> untaken;  // the last of them
    };
    // A reader's count of one writer's messages.
    struct Source {
        uint64_t received = 0, taken = 0;
        uint32_t incarnation = 0;  // of the writer, told last
    };
    struct Arrived {
        int writer = -1;  // -1: received before the last suspend
        BodyPtr body;
    };
    // A message that is given, to a reader the writer's map does not know yet. It is out of the
    // pool: told of again it would go to a second reader, and there perhaps after later ones.
    struct Give {
        Item item;
        uint16_t reader = 0;
        uint32_t incarnation = 0;
    };
    // What a socket offers, as the orderer knows it.
    using Offer = std::tuple<int64_t, uint16_t, uint64_t>;  // stamp, writer, id

    void mapped() override;
    void received(const wire::StreamHeader& header, BodyPtr body) override;
    void resume_all() override;

    // writer
    void announce(const Item& item);
    void on_give(const wire::StreamHeader& header, const BodyPtr& body);
    void give(Give order);
    void offer_again(Item item);
    void on_taken(uint16_t reader, uint64_t number);
    void on_resume(uint16_t reader, uint64_t number);
    void drop_taken(Lane& lane, uint64_t number);
    void look_after_lanes();
    void take_back(Lane& lane, uint64_t received);
    // reader
    void on_data(const wire::StreamHeader& header, BodyPtr body);
    void say_what_came();
    // both, to the orderer
    uint16_t orderer() const;
    void tell_orderer(wire::StreamKind kind, uint64_t number, const BodyPtr& body = {});
    void say_all();
    // orderer
    void on_hello(const wire::StreamHeader& header, const BodyPtr& body);
    void on_want(const wire::StreamHeader& header);
    void forget(uint16_t socket);
    void forget_the_gone();
    void match();

    bool restore_item(const nlohmann::json& json, Item& item);
    bool restore_lane(const nlohmann::json& json);

    int64_t stamp_ = 0;
    uint64_t sent_ = 0;
    std::map<uint64_t, Item> pool_;  // not given yet, by id
    std::map<uint16_t, Lane> lanes_;
    std::deque<Give> early_;

    std::map<uint16_t, Source> sources_;
    std::deque<Arrived> inbox_;
    size_t outstanding_ = 0;  // messages asked for

    std::set<Offer> offers_;
    std::deque<uint16_t> hungry_;                // readers, as often as they want a message
    std::map<uint16_t, uint32_t> incarnations_;  // of those the two above are about
    bool matching_ = false;
};

}  // namespace kernet
