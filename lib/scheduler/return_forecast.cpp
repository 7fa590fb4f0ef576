#include <isthmus/scheduler/return_forecast.h>

#include <algorithm>
#include <vector>

namespace isthmus::scheduler {
namespace {

using std::chrono::nanoseconds;

constexpr nanoseconds kFirstGuess = std::chrono::microseconds(250);  // grows while it is too short

constexpr int kAbsence = 4;  // times the usual; who is later has probably ended
constexpr nanoseconds kLeastAbsence = std::chrono::milliseconds(100);
constexpr nanoseconds kFirstAbsence = std::chrono::seconds(1);

constexpr int kMemory = 4;  // a new time counts one part in so many

}  // namespace

void ReturnForecast::answered(uint64_t lane, Clock::TimePoint now) {
  lanes_[lane].answered = now;
}

void ReturnForecast::arrived(uint64_t lane, Clock::TimePoint now) {
  Lane& known = lanes_[lane];
  if (known.answered) {
    // Taking the time of a pass for the lane's own would mean never to wait for it again, and so
    // never to learn better.
    const nanoseconds least = std::max<nanoseconds>(nanoseconds(0), caught_up_ - *known.answered);
    const nanoseconds most = std::max<nanoseconds>(least, now - *known.answered);
    const nanoseconds away = std::clamp(known.usual.value_or(kFirstGuess), least, most);
    known.usual = known.usual ? *known.usual + (away - *known.usual) / kMemory : away;
  }
  known.answered.reset();
}

void ReturnForecast::forget(uint64_t lane) {
  lanes_.erase(lane);
}

bool ReturnForecast::expects_any(Clock::TimePoint now) const {
  return std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& entry) {
    const Lane& lane = entry.second;
    const nanoseconds longest =
        lane.usual ? std::max(kLeastAbsence, kAbsence * *lane.usual) : kFirstAbsence;
    return lane.answered && now - *lane.answered <= longest;
  });
}

ReturnForecast::Wait ReturnForecast::worth_waiting(Clock::TimePoint now, const Loss& loss) const {
  std::vector<Lane> away;
  for (const auto& [id, lane] : lanes_) {
    if (lane.answered && lane.usual) away.push_back(lane);
  }
  while (!away.empty()) {
    // The fewer there are to wait for, the less it is worth.
    const nanoseconds patience = loss(away.size());
    const size_t hopeless = std::erase_if(away, [&](const Lane& lane) {
      return *lane.usual > patience || *lane.answered + patience <= now;
    });
    if (hopeless > 0) continue;
    Wait wait;
    for (const Lane& lane : away) {
      wait.usual = std::max<nanoseconds>(wait.usual, *lane.answered + *lane.usual - now);
      wait.longest = std::max<nanoseconds>(wait.longest, *lane.answered + patience - now);
    }
    return wait;
  }
  return {};
}

}  // namespace isthmus::scheduler
