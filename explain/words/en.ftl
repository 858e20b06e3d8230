# English. Messages are written in Project Fluent's syntax (https://projectfluent.org).
#
# A kind of fact has the attributes .clause (a sentence without its full stop, in lower case) and .short (a noun phrase); a feature has .label,
# its name, instead of .short. The kinds step, earlier and found-rule pass a text through.
# The values of a fact are its arguments; $subject is what the fact is about, $side what it supports.

## What a fact is about

subject-word = { $subject ->
    [card] card
    [merchant] merchant
    [device] device
   *[transaction] payment
 }
this-subject = { $subject ->
    [merchant] this merchant
    [device] this device
   *[card] this card
 }
at-subject = { $subject ->
    [merchant] at this merchant
    [device] with this device
   *[card] with this card
 }
of-subject = { $subject ->
    [merchant] of this merchant
    [device] of this device
   *[card] of this card
 }

## Lengths of time: $window_n and $window_unit

window-note = { " " }(ending { $delay } before this payment)
window = { $window_unit ->
    [day] { $window_n ->
        [one] 1 day
       *[other] { $window_n } days
     }
    [hour] { $window_n ->
        [one] 1 hour
       *[other] { $window_n } hours
     }
    [minute] { $window_n ->
        [one] 1 minute
       *[other] { $window_n } minutes
     }
   *[second] { $window_n ->
        [one] 1 second
       *[other] { $window_n } seconds
     }
 }{ $window_note }

## How a value is set beside what is usual, and beside honest and fraudulent payments

with-usual = { $words }, usually { $usual }
with-label = { $label } ({ subject-word }): { $value }
honest-percent = { $share } of honest payments
honest-one-in = 1 in { $n } honest payments
honest-none = none of the sampled honest payments
fraud-percent = { $share } of frauds
fraud-one-in = 1 in { $n } frauds
fraud-none = none of the sampled frauds
contrast-high = the value is at least this high for { $honest } and { $fraud }
contrast-low = the value is at least this low for { $honest } and { $fraud }
contrast-flag = this holds for { $honest } and { $fraud }
contrast-late = { $honest } and { $fraud } are at this time of day or later
contrast-early = { $honest } and { $fraud } are at this time of day or earlier
contrast-late-in-week = { $honest } and { $fraud } are on this weekday or later (Monday to Sunday)
contrast-early-in-week = { $honest } and { $fraud } are on this weekday or earlier (Monday to Sunday)
contrast-long = the time is at least this long for { $honest } and { $fraud }
contrast-recent = the time is at most this long for { $honest } and { $fraud }
yes = yes
no = no
unknown = unknown

## Sentences

capital-after-colon = yes
opening-strongest-for-fraud-theme = strongest for fraud, “{ $theme }”: { $rest }
opening-strongest-against-fraud-theme = strongest against fraud, “{ $theme }”: { $rest }
opening-also = also: { $rest }
opening-for-fraud = for fraud: { $rest }
opening-against-fraud = against fraud: { $rest }
opening-strongest-for-fraud = strongest for fraud: { $rest }
opening-strongest-against-fraud = strongest against fraud: { $rest }
opening-usual = usual for this card: { $rest }
joiner-and = { $left } and { $right }
joiner-but = { $left }, but { $right }
joiner-semicolon = { $left }; { $right }
joiner-comma = { $left }, { $right }
with-contrast = { $words } ({ $contrast })
part-what_happened = What happened
part-why_unusual = Why it is unusual
part-similar_cases = Similar cases
part-speaks_against = What speaks against fraud
part-next_step = Next step

## Themes

code-theme-amount = Amount compared with the card's habit
code-theme-pace = Pace of payments
code-theme-small-amounts = Very small amounts
code-theme-place = Place and travel
code-theme-device = Device and channel
code-theme-time = Time of day
code-theme-merchant-kind = Kind of merchant
code-theme-reported-fraud = Reported fraud
code-theme-merchant-activity = Merchant's activity and prices

## Codes

code-online = online
code-card-present = with the card present
code-unknown = through an unknown channel
code-no-country = an unknown country
code-fraud = fraud
code-legitimate = legitimate
code-field-mcc = the category
code-field-country = the country
code-field-channel = the channel
code-field-device = the device
code-card-testing = card testing
code-stolen-card = stolen card
code-compromised-terminal = compromised terminal
code-account-takeover = account takeover
code-impossible-travel = impossible travel
code-slow-skimming = slow skimming
code-friendly-fraud = friendly fraud
code-other = another kind

## The payment and its score

payment =
    .clause = { $amount } was paid { $channel } ({ $country }) on { $when } UTC
    .short = { $amount } { $channel } on { $when } UTC
payment-first =
    .clause = no payment of this card came in the weeks before
    .short = no payment in the weeks before
payment-recent =
    .clause = { $recent ->
        [one] { $hour ->
            [0] the card's payment before did not come within the hour before
           *[other] the card's payment before came within the hour before
         }
       *[other] { $hour ->
            [0] none
           *[other] { $hour }
         } of the card's last { $recent } payments came within the hour before
     }
    .short = { $hour } of { $recent } payments within the hour before
score =
    .clause = the model's probability of fraud is { $probability }: { $hundred ->
        [0] fewer than 1
       *[other] about { $hundred }
     } in 100 payments scored like this { $hundred ->
        [one] is
       *[other] are
     } fraud (review starts at { $review })
    .short = a fraud probability of { $probability }
score-few =
    .clause = the model's probability of fraud is { $probability }, but few payments have scored like this, so that { $low } to { $high } in 100 may be fraud (95% interval; review starts at { $review })
    .short = a fraud probability of { $probability } from few comparable payments
score-elsewhere =
    .clause = another model gave a fraud probability of { $probability }
    .short = a fraud probability of { $probability } by another model
unscored =
    .clause = no model could score this payment
    .short = no score
doubt-late =
    .clause = this payment reached the system too late, so what happened around it is known only in part
    .short = a payment that came too late
doubt-reused =
    .clause = an earlier purchase with this card already had this payment's id
    .short = a reused payment id
doubt-currency =
    .clause = there is no exchange rate for { $currency }, so amounts were left out of the score
    .short = no exchange rate for { $currency }
other-bundle =
    .clause = model { $raised } raised this alert, and this worker has model { $here }, so the reasons behind the score are not known
    .short = a score by another model
novel =
    .clause = taken as a whole, this payment is more unusual than nearly all payments in the training data
    .short = an unusual payment as a whole
rule =
    .clause = the rule { $rule } holds for this payment
    .short = the rule { $rule }
missing =
    .clause = { $field } was not given with this payment
    .short = { $field } missing
theme =
    .clause = “{ $theme }” { $side ->
        [fraud] raises
        [legitimate] lowers
       *[neither] does not move
     } the score; without it the probability would be { $without }
    .short = “{ $theme }”
balance =
    .clause = { $fraud ->
        [0] no theme behind the score speaks
        [one] 1 theme behind the score speaks
       *[other] { $fraud } themes behind the score speak
     } for fraud and { $against } against it
    .short = { $fraud ->
        [one] 1 theme
       *[other] { $fraud } themes
     } for fraud and { $against } against it
balance-one-sided =
    .clause = no theme behind the score speaks against fraud
    .short = no theme against fraud
earlier =
    .clause = { $text }
    .short = { $text }
step =
    .clause = { $text }
    .short = { $text }

## Features

feature-amount =
    .clause = the amount is { $value }
    .label = amount
feature-hour =
    .clause = it happened at { $value } UTC
    .label = time of day
feature-weekday =
    .clause = it happened on a { $value }
    .label = weekday
feature-weekend =
    .clause = it { $value ->
        [yes] happened at a weekend
       *[no] happened on a working day
     }
    .label = weekend
feature-night =
    .clause = it { $value ->
        [yes] happened at night (UTC)
       *[no] did not happen at night (UTC)
     }
    .label = night
feature-online =
    .clause = { $value ->
        [yes] it was made online
       *[no] the card was present at the merchant
     }
    .label = online
feature-count =
    .clause = { this-subject } had { $value ->
        [one] 1 payment
       *[other] { $value } payments
     } within { window }
    .label = payments within { window }
feature-amount-sum =
    .clause = { $subject ->
        [merchant] this merchant took
       *[card] this card spent
     } { $value } within { window }
    .label = sum within { window }
feature-amount-mean =
    .clause = the mean amount { of-subject } within { window } is { $value }
    .label = mean amount within { window }
feature-amount-ratio =
    .clause = the amount is { $value } times the mean amount { of-subject } within { window }
    .label = amount over the mean of { window }
feature-low-count =
    .clause = { this-subject } had { $value ->
        [one] 1 very small payment
       *[other] { $value } very small payments
     } within { window }
    .label = very small payments within { window }
feature-low-share =
    .clause = { $value } of the payments { of-subject } within { window } were very small
    .label = share of very small payments within { window }
feature-amount-max =
    .clause = the highest amount { of-subject } within { window } is { $value }
    .label = highest amount within { window }
feature-amount-to-max =
    .clause = the amount is { $value } times the highest amount { of-subject } in the { window } before
    .label = amount over the highest of { window }
feature-amount-zscore =
    .clause = the distance of the amount from the mean amount { of-subject } within { window } is { $value } smoothed standard deviations
    .label = deviation of the amount from { window }
feature-distinct-merchants =
    .clause = { this-subject } paid { $value ->
        [one] 1 merchant
       *[other] { $value } different merchants
     } within { window }
    .label = merchants within { window }
feature-distinct-countries =
    .clause = { this-subject } was used in { $value ->
        [one] 1 country
       *[other] { $value } countries
     } within { window }
    .label = countries within { window }
feature-new-merchant =
    .clause = { this-subject } { $value ->
        [yes] had not paid
       *[no] had paid
     } this merchant in the { window } before
    .label = new merchant
feature-new-country =
    .clause = { this-subject } { $value ->
        [yes] had not been used
       *[no] had been used
     } in this country in the { window } before
    .label = new country
feature-category-share =
    .clause = { $value } of the payments { of-subject } in the { window } before were in this category
    .label = share of this category
feature-night-share =
    .clause = { $value } of the payments { of-subject } in the { window } before were at night
    .label = share at night
feature-online-share =
    .clause = { $value } of the payments { of-subject } in the { window } before were online
    .label = share online
feature-burst =
    .clause = counting this payment, the rate of payments { of-subject } within { window } is { $value } times the average
    .label = rate of payments within { window } over the average
feature-fraud-count =
    .clause = { $value ->
        [one] 1 payment { at-subject } within { window } is known to be fraud
       *[other] { $value } payments { at-subject } within { window } are known to be fraud
     }
    .label = known frauds within { window }
feature-fraud-share =
    .clause = { $value } of the payments { at-subject } within { window } are known to be fraud
    .label = share of known frauds within { window }
feature-max-to-normal =
    .clause = the highest amount { of-subject } in the { window } before is { $value } times its estimated normal amount
    .label = highest amount of { window } over the normal
feature-unusual-count =
    .clause = { this-subject } had { $value ->
        [one] 1 payment of an unusual amount
       *[other] { $value } payments of unusual amounts
     } in the { window } before
    .label = unusual amounts within { window }
feature-first-unusual =
    .clause = the first unusual amount { of-subject } in the { window } before came { $value } days before this payment
    .label = days since the first unusual amount of { window }
feature-last-unusual =
    .clause = the last unusual amount { of-subject } in the { window } before came { $value } days before this payment
    .label = days since the last unusual amount of { window }
feature-first-fraud =
    .clause = the first known fraud { at-subject } within { window } happened { $value } days before this payment
    .label = days since the first known fraud of { window }
feature-last-fraud =
    .clause = the last known fraud { at-subject } within { window } happened { $value } days before this payment
    .label = days since the last known fraud of { window }
feature-seconds-since-last =
    .clause = the payment before this one was { $value } earlier
    .label = time since the last payment
feature-distance =
    .clause = this payment is { $value } from the last place where the card was present
    .label = distance from the last place where the card was present
feature-speed =
    .clause = getting here from the last place where the card was present takes a speed of { $value }
    .label = travel speed
feature-new-device =
    .clause = { this-subject } { $value ->
        [yes] had not recently been used
       *[no] had recently been used
     } with this device
    .label = new device
feature-amount-to-normal =
    .clause = the amount is { $value } times the estimated normal amount { of-subject }
    .label = amount over the normal
feature-recent-to-normal =
    .clause = the mean of the last three amounts { of-subject } is { $value } times its estimated normal amount
    .label = last amounts over the normal
feature-fraud-reports =
    .clause = { $value ->
        [one] 1 fraud at { this-subject } was reported within { window }
       *[other] { $value } frauds at { this-subject } were reported within { window }
     }
    .label = reported frauds within { window }
feature-fraud-report-share =
    .clause = the smoothed rate of reported fraud at { this-subject } over { window } is { $value }
    .label = rate of reported fraud over { window }
feature-usual-fraud-count =
    .clause = { $value ->
        [one] 1 payment { at-subject } within { window } is known to be fraud although its amount was usual for its card
       *[other] { $value } payments { at-subject } within { window } are known to be fraud although their amounts were usual for their cards
     }
    .label = known frauds of usual amount within { window }
feature-usual-fraud-share =
    .clause = { $value } of the payments { at-subject } within { window } are known to be fraud although their amounts were usual for their cards
    .label = share of known frauds of usual amount within { window }
feature-first-usual-fraud =
    .clause = the first known fraud { at-subject } within { window } whose amount was usual for its card happened { $value } days before this payment
    .label = days since the first fraud of usual amount of { window }
feature-last-usual-fraud =
    .clause = the last known fraud { at-subject } within { window } whose amount was usual for its card happened { $value } days before this payment
    .label = days since the last fraud of usual amount of { window }
feature-last-legitimate =
    .clause = the last payment { at-subject } within { window } that is not known to be fraud was { $value } days before this payment
    .label = days since the last payment of { window } not known to be fraud

## The past

archive-missing =
    .clause = the archive of past payments could not be read, so habits and histories are not known
    .short = no archive of past payments
archive-behind =
    .clause = the archive does not hold this payment yet, so the latest payments may be missing from habits and histories
    .short = an archive that is behind
archive-young =
    .clause = the archive reaches back only { $days ->
        [one] 1 day
       *[other] { $days } days
     }
    .short = an archive of { $days ->
        [one] 1 day
       *[other] { $days } days
     }
habit-none =
    .clause = the archive holds no payment of this card in the { $days ->
        [one] day
       *[other] { $days } days
     } before
    .short = no earlier payment of this card
habit-amount =
    .clause = half of this card's { $payments ->
        [one] 1 payment
       *[other] { $payments } payments
     } before are at most { $median }, and 95% at most { $high }; this one is higher than { $rank } of them
    .short = usual amounts up to { $median } (half) and { $high } (95%)
habit-hours =
    .clause = { $share } of this card's payments are made from { $begin } to { $end } UTC, as this one was
    .short = { $share } of payments from { $begin } to { $end } UTC
habit-channel =
    .clause = { $share } of this card's payments are made { $channel }, as this one was
    .short = { $share } of payments { $channel }
habit-category =
    .clause = { $share } of this card's payments are in the category { $category }, as this one is
    .short = { $share } of payments in the category { $category }
habit-place =
    .clause = this payment was made { $distance } from the card's home area, where { $share } of its located payments in shops are made
    .short = { $distance } from the card's home area
habit-merchant-new =
    .clause = this card made no payment here in the { $days ->
        [one] day
       *[other] { $days } days
     } before
    .short = a merchant new to the card
habit-merchant =
    .clause = this card paid here { $payments ->
        [one] once
       *[other] { $payments } times
     } before
    .short = { $payments ->
        [one] 1 earlier payment
       *[other] { $payments } earlier payments
     } here
habit-merchant-largest =
    .clause = this card paid here { $payments ->
        [one] once
       *[other] { $payments } times
     } before (largest: { $largest })
    .short = { $payments ->
        [one] 1 earlier payment
       *[other] { $payments } earlier payments
     } here (largest: { $largest })
device-new =
    .clause = this card did not use this device in the { $days ->
        [one] day
       *[other] { $days } days
     } before
    .short = a device new to the card
device-known =
    .clause = this card used this device { $payments ->
        [one] once, on { $first }
       *[other] { $payments } times from { $first } to { $last }
     }
    .short = a device used { $payments ->
        [one] once
       *[other] { $payments } times
     } before
device-shared =
    .clause = { $cards ->
        [one] 1 other card
       *[other] { $cards } other cards
     } used this device in the { $days ->
        [one] day
       *[other] { $days } days
     } before
    .short = a device of { $cards ->
        [one] 1 other card
       *[other] { $cards } other cards
     }
merchant-history =
    .clause = this merchant had { $payments ->
        [one] 1 payment
       *[other] { $payments } payments
     } by { $cards ->
        [one] 1 card
       *[other] { $cards } cards
     } in the { $days ->
        [one] day
       *[other] { $days } days
     } before; { $frauds ->
        [0] no fraud was reported
        [one] 1 fraud was reported
       *[other] { $frauds } frauds on { $cards_with_fraud ->
            [one] 1 card
           *[other] { $cards_with_fraud } cards
         } were reported
     }
    .short = { $frauds ->
        [0] no fraud reported at this merchant
        [one] 1 fraud reported at this merchant
       *[other] { $frauds } frauds reported at this merchant
     }

## Similar cases

cases-none =
    .clause = no similar case was closed before this alert
    .short = no similar closed case
cases-not-searched =
    .clause = similar cases were not looked for, because no model here scored the payment
    .short = no search for similar cases
cases =
    .clause = of the { $cases ->
        [one] 1 most similar closed case
       *[other] { $cases } most similar closed cases
     }, { $frauds ->
        [0] none was
        [one] 1 was
       *[other] { $frauds } were
     } fraud and { $legitimate ->
        [0] none
       *[other] { $legitimate }
     } legitimate
    .short = { $frauds ->
        [0] no fraud
        [one] 1 fraud
       *[other] { $frauds } frauds
     } among the { $cases } most similar cases, { $legitimate } of them legitimate
cases-contradict =
    .clause = the similar cases contradict the score: { $frauds } of { $cases } were fraud, but the model puts the probability of fraud at { $probability }
    .short = similar cases that contradict the score
case =
    .clause = a case closed on { $closed } UTC, { $similarity } similar, was { $outcome }
    .short = a case that was { $outcome }
case-shared =
    .clause = a case closed on { $closed } UTC, { $similarity } similar and also marked by “{ $theme }”, was { $outcome }
    .short = a case that was { $outcome }, also marked by “{ $theme }”
difference = { $label } { $there } there, { $here } here
typology =
    .clause = { $support } of the { $cases } nearest cases were frauds of the type { $typology }
    .short = the likely type { $typology }
typology-fitted =
    .clause = if this is fraud, it is of the type { $typology } with a probability of { $probability } (a classifier that was right for { $right } of { $cases } closed frauds)
    .short = the likely type { $typology } ({ $probability })

## What an investigation finds

found-payment =
    .clause = { $ago } before, the card paid { $amount } { $channel } ({ $country })
    .short = { $amount } { $channel }, { $ago } before
found-payment-here =
    .clause = { $ago } before, the card paid { $amount } { $channel } ({ $country }) at this merchant
    .short = { $amount } at this merchant, { $ago } before
found-alerts =
    .clause = { this-subject } had { $alerts ->
        [one] 1 other alert
       *[other] { $alerts } other alerts
     }: { $frauds } found to be fraud, { $legitimate } legitimate, { $open } not closed
    .short = { $alerts ->
        [one] 1 other alert
       *[other] { $alerts } other alerts
     } { of-subject }
found-linked =
    .clause = { $cards ->
        [one] 1 other card
       *[other] { $cards } other cards
     } had alerts at this merchant, { $frauds ->
        [0] none of these cards
        [one] 1 of these cards
       *[other] { $frauds } of these cards
     } with fraud
    .short = { $cards ->
        [one] 1 other card
       *[other] { $cards } other cards
     } with alerts here
found-rule =
    .clause = { $text }
    .short = the rule's definition


rarity-percent = { $share }
rarity-one-in = 1 in { $n }
rarity-none = none
