# Words of the console.

ui-outcome = Outcome
ui-probability = Probability
ui-expected-loss = Expected loss
ui-reasons = Reasons by theme
ui-without = without it { $share }
ui-nothing-telling = nothing that separates fraud from honest payments
ui-on-its-way = The explanation is on its way.
ui-reasons-hint = Points are log-odds: red speaks for fraud, blue against. “Without it” is the probability if the theme said nothing. Shares are of the payments that the model was trained on.
ui-habits = Habits beside this payment
ui-usual = Usual
ui-this-payment = This payment
ui-amount = Amount
ui-time = Time (UTC)
ui-channel = Channel
ui-category = Category
ui-place = Place
ui-device = Device
ui-merchant = This merchant
ui-habit-amount = half up to { $median }, 95% up to { $high }
ui-higher-than = { $amount }: higher than { $rank }
ui-no-amount = no earlier payment in this currency
ui-habit-hours = 0–6 h { $a }, 6–12 h { $b }, 12–18 h { $c }, 18–24 h { $d }
ui-habit-online = { $share } online
ui-habit-home = { $share } within { $near } of the home area
ui-from-home = { $distance } from there
ui-device-used = used { $payments ->
    [one] once, on { $first }
   *[other] { $payments } times from { $first } to { $last }
 }
ui-more-devices = { $n } more
ui-device-new = not used by this card before
ui-device-shared = used by { $cards ->
    [one] 1 other card
   *[other] { $cards } other cards
 }
ui-merchant-history = { $payments ->
    [one] 1 payment
   *[other] { $payments } payments
 } by { $cards ->
    [one] 1 card
   *[other] { $cards } cards
 }; { $frauds ->
    [0] no fraud reported
    [one] 1 fraud reported
   *[other] { $frauds } frauds reported on { $cards_with_fraud ->
        [one] 1 card
       *[other] { $cards_with_fraud } cards
     }
 }
ui-here-before = { $payments ->
    [one] 1 earlier payment
   *[other] { $payments } earlier payments
 } of this card
ui-here-largest = { $payments ->
    [one] 1 earlier payment
   *[other] { $payments } earlier payments
 } of this card, at most { $largest }
ui-here-new = no payment of this card before
ui-payments-in-days = { $payments ->
    [one] 1 payment
   *[other] { $payments } payments
 } in { $days ->
    [one] 1 day
   *[other] { $days } days
 }
ui-archive-behind = The archive does not hold this payment yet: some payments may be missing here.
ui-archive-missing = The archive is not there or does not answer: habits, merchant names and devices cannot be shown.
ui-no-payments = The archive holds no earlier payment of this card.
ui-last-payments = Last payments of this card
ui-before = Before
ui-from-home-heading = From home
ui-known = known
ui-new = new
ui-another = another
ui-no-recent = No earlier payment of this card is known.
ui-verdict = Verdict
ui-typology-if-fraud = type, if fraud
ui-note = Note
ui-in-words = In words
ui-written-by = Written by { $names }. Every sentence is made of checked facts; { $replaced } of { $checked } proposed sentences were refused.
ui-why = Why
ui-cases = Similar closed cases
ui-no-cases = No similar case was closed before this alert.
ui-closed = closed { $when }
ui-shared = also { $themes }
ui-no-difference = no marked difference
ui-investigation = Investigation
ui-investigate-hint = It reads this card's and merchant's payments, alerts and similar cases with read-only tools. It places checked facts; it decides nothing.
ui-under-way = Under way since { $when } UTC …
ui-broken-down = The investigation that { $by } started at { $when } UTC failed. Try again, or ask an administrator to look at the console's log.
ui-nothing-passed = None of its sentences passed the check.
ui-transcript = Transcript
ui-others = Other alerts of this card, device and merchant
ui-same-card = same card
ui-same-device = same device
ui-same-merchant = same merchant
ui-open = open
ui-none = None.
ui-facts = All facts
ui-decline = decline
ui-review = review
ui-approve = approve
ui-finding-fraud = fraud
ui-finding-legitimate = legitimate
ui-finding-escalate = escalate
ui-merchant-column = Merchant
ui-card = Card
ui-previous = previous
ui-next = next
ui-empty-queue = No alert matches. New ones appear here by themselves.
ui-score-picture = Contributions to the score in log-odds
ui-amounts-picture = Amounts of the card's last payments in { $currency }, by time before this one
ui-this = this payment
ui-before-this = { $ago } before
ui-honest = honest
ui-frauds = frauds
ui-points = points
ui-rarity-hint = Share of the honest payments and of the frauds in the training data with a value at least this extreme
ui-higher-than-all = { $amount }: higher than all

## The frame of every page

ui-nav-queue = Queue
ui-nav-lists = Lists
ui-nav-leads = Leads
ui-nav-audit = Audit trail
ui-nav-users = Users
ui-nav-webhooks = Webhooks
ui-navigation = Pages
ui-skip = Skip to the content
ui-request-failed = The request failed
ui-back-to-queue = Back to the queue
ui-close = Close
ui-action = Action
ui-state = State
ui-error = Error
ui-number = Number
ui-reason = Reason
ui-value = Value
ui-kind = Kind
ui-show = Show
ui-change = Change
ui-remove = Remove
ui-days = Valid for (days)
ui-label = Label
ui-address = Address
ui-subject = Subject
ui-detail = Detail
ui-result = Result
ui-alert = Alert
ui-alerts = Alerts
ui-undo = Undo

## Keys

ui-help-title = Keys
ui-help-move = move down and up in the queue
ui-help-open = open the alert under the cursor
ui-help-pages = previous and next page
ui-help-next = claim and open the next alert
ui-help-search = search
ui-help-queue = back to the queue
ui-help-verdict = give a verdict: fraud, legitimate or escalate
ui-help-fields = choose the typology, the closing reason, write a note
ui-help-undo = undo the last verdict
ui-help-claim = claim or release the alert, choose how long to snooze it
ui-help-escape = leave a field
ui-help-help = show these keys

## Access

ui-sign-in = Sign in
ui-sign-in-provider = Sign in with your organisation's account
ui-sign-out = Sign out
ui-sign-out-everywhere = Sign out on all devices
ui-user-name = User name
ui-password = Password
ui-new-password = New password
ui-password-again = New password again
ui-password-hint = Choose at least 12 characters. A sentence is easy to remember.
ui-passwords-differ = The two passwords differ.
ui-set-password = Set the password
ui-invitation = Welcome to whyflag
ui-account = Account
ui-tokens = API tokens
ui-new-token = New token
ui-shown-once = Copy it now: it is shown only once.
ui-create-token = Create a token
ui-scopes = Scopes
ui-revoke = Revoke
ui-expires = expires { $when }
ui-role = Role
ui-role-analyst = Analyst
ui-role-lead = Lead
ui-role-admin = Administrator
ui-role-auditor = Auditor
ui-invite = Invite
ui-invited = Invited
ui-link-hint = Send this link to the user. It works once, for 24 hours, and is shown only now.
ui-invite-hint = An invitation to an existing user sets a new password. When it is accepted, the user's sessions and tokens end.
ui-add-proxied = Add without a password
ui-with-password = with a password
ui-without-password = without a password
ui-disabled = disabled

## The queue

ui-section = Section
ui-section-open = Open
ui-section-mine = Mine
ui-section-snoozed = Snoozed
ui-section-escalated = Escalated
ui-section-closed = Closed
ui-section-all = All
ui-queue-summary = { $shown } shown · { $breaches } overdue
ui-order = Order
ui-order-priority = severity, then deadline
ui-order-loss = expected loss
ui-order-deadline = deadline
ui-order-time = newest first
ui-order-hint-priority = Ordered by severity, then by deadline. The expected loss sets the severity.
ui-order-hint-loss = Ordered by expected loss: probability of fraud times amount.
ui-order-hint-deadline = Ordered by deadline.
ui-order-hint-time = Ordered by the time of the payment, newest first.
ui-severity-critical = critical
ui-severity-high = high
ui-severity-normal = normal
ui-due = Due
ui-due-in = due in { $time }
ui-state-escalated = escalated
ui-overdue = overdue by { $time }
ui-loss-calculation = { $probability } of { $amount }
ui-why-here = Why is this here?
ui-no-single-reason = No single fact explains this alert.
ui-closed-by = { $finding }, by { $name }
ui-claimed-by = { $name } works on it
ui-yours = You work on it
ui-snoozed-until = snoozed until { $time } UTC
ui-more-than = more than { $n }
ui-more-of-card = more open alerts of this card: { $n }
ui-search = Search
ui-search-hint = beginning of an ID or of a merchant's name
ui-filters = Filters
ui-more-filters = More filters
ui-any = any
ui-by-card = group by card
ui-typology = Likely typology
ui-assignee = Claimed by
ui-amount-from = Amount from
ui-amount-to = Amount to
ui-age-from = At least this old (hours)
ui-age-to = At most this old (hours)
ui-view-name = Name of the view
ui-shared-view = for everybody
ui-save-view = Save as a view
ui-delete-view = Delete the view
ui-first-page = To the first page
ui-skip-alert = Skip
ui-open-next = Open the next alert
ui-judge-all = Judge all matching alerts

## Verdicts

ui-closing-reason = closing reason
ui-reason-customer_denied = customer denies the payment
ui-reason-customer_confirmed = customer confirms the payment
ui-reason-known_pattern = known fraud pattern
ui-reason-usual_behaviour = usual behaviour of this card
ui-reason-merchant_confirmed = merchant confirms the payment
ui-reason-duplicate = duplicate of another alert
ui-reason-needs_senior = needs a lead's decision
ui-reason-other = other
ui-verdict-waiting = can be undone
ui-verdict-leaving = is being sent
ui-verdict-published = sent
ui-verdict-undone = undone
ui-verdict-recorded = Verdict “{ $finding }” recorded. It can be undone for { $left }.
ui-claim = Claim
ui-release = Release
ui-snooze = Snooze
ui-snooze-for = Snooze for
ui-wake = End the snooze
ui-escalated-to-leads = escalated: a lead decides
ui-conflict = Two verdicts on one alert
ui-conflict-hint = The alert changed after you opened it. Compare both verdicts and choose.
ui-their-verdict = The verdict that counts
ui-your-verdict = Your verdict, not recorded
ui-verdict-was-undone = The earlier verdict was undone: the alert is open again.
ui-keep-theirs = Keep it and open the alert
ui-give-mine = Give my verdict instead
ui-bulk = One verdict on many alerts
ui-bulk-preview = The first alerts
ui-bulk-none = The filter shows no open alert.
ui-bulk-too-many = The filter shows more than 10,000 alerts: narrow it.
ui-bulk-hint = The verdict applies to all alerts of the filter that nobody else has claimed or changed since this preview.
ui-bulk-title = Verdict { $number } on many alerts: { $finding }, by { $by }, { $when } UTC
ui-bulk-was-undone = This verdict was undone.
ui-bulk-recent = Recent verdicts on many alerts
ui-bulk-waiting = not judged yet
ui-bulk-done = judged
ui-bulk-claimed = left alone: somebody works on it
ui-bulk-changed = left alone: it had changed
ui-bulk-undone = undone
ui-bulk-left = not undone: its verdict was sent or replaced

## The assistant

ui-assistant = Ask about this alert
ui-question = Question
ui-question-hint = without a question, the assistant investigates the alert
ui-ask = Ask
ui-answer-figures = { $model } · { $steps ->
    [one] { $steps } model reply
   *[other] { $steps } model replies
} · { $tokens } tokens · { $time } · sentences checked: { $checked }, refused: { $refused }
ui-fact = Fact
ui-habit = Habit

## Cards, merchants and devices

ui-card-page = Card
ui-merchant-page = Merchant
ui-device-page = Device
ui-kind-card = card
ui-kind-merchant = merchant
ui-kind-device = device
ui-alerts-open = open alerts
ui-payments = payments in 90 days
ui-cards = cards in 90 days
ui-devices = devices
ui-reported-frauds = reported frauds
ui-online-share = online
ui-all-alerts = Show all its alerts in the queue
ui-ago = Ago
ui-links = Links by alerts
ui-links-picture = Cards, merchants and devices that share alerts with { $value }
ui-links-table = Links as a table
ui-linked-to = Linked to
ui-with-fraud = with fraud
ui-hidden-nodes = { $n } more hidden.
ui-hops-1 = Show only direct links
ui-hops-2 = Show links of links
ui-on-list-block = On the block list until { $until }.
ui-on-list-allow = On the allow list until { $until }.

## Lists and next steps

ui-lists-hint = Rules refer to these lists by names such as block_card and allow_merchant. A change takes effect once somebody else has approved it.
ui-list = List
ui-list-block = block list
ui-list-allow = allow list
ui-entries = Entries
ui-expires-on = Expires on
ui-proposals = Proposals
ui-all-proposals = show all
ui-only-pending = show only pending ones
ui-propose = Propose
ui-propose-entry = Propose a list entry
ui-propose-removal = Propose removal
ui-proposal-add = Put { $value } on the { $list } until { $until }
ui-proposal-remove = Take { $value } off the { $list }
ui-proposal-steps = Replace the table of next steps
ui-proposed-by = proposed by { $name }, { $when } UTC
ui-proposal-pending = pending
ui-proposal-approved = approved by { $name }
ui-proposal-rejected = rejected by { $name }
ui-proposal-withdrawn = withdrawn by { $name }
ui-approve-proposal = Approve
ui-reject = Reject
ui-withdraw = Withdraw
ui-next-steps = Next steps
ui-next-steps-hint = The first step whose conditions hold is suggested for an alert. New alerts use an approved table within 30 seconds.

## Leads

ui-figure-backlog = waiting
ui-figure-breached = overdue
ui-figure-raised = raised per day
ui-figure-closed = closed per day
ui-figure-days-of-work = days of work in the backlog
ui-figure-median = median time to a verdict
ui-figure-verdicts = verdicts
ui-verdict-mix = { $fraud } fraud · { $legitimate } legitimate · { $escalated } escalated
ui-work-picture = Alerts raised and closed per day
ui-table-backlog = Backlog
ui-table-work = Work per day
ui-table-themes = Precision by theme
ui-table-rules = Precision by rule
ui-table-bundles = Precision by bundle
ui-table-people = Verdicts by person
ui-table-thresholds = What other thresholds would do (backtest of the bundle)
ui-column-severity = Severity
ui-column-open-count = Open
ui-column-escalated-count = Escalated
ui-column-breached = Overdue
ui-column-oldest = Age of the oldest
ui-column-day = Day
ui-column-raised = Raised
ui-column-closed = Closed
ui-column-closed-late = Closed late
ui-column-theme = Theme
ui-column-rule = Rule
ui-column-bundle = Bundle
ui-column-frauds = Frauds
ui-column-legitimate = Legitimate
ui-column-precision = Precision
ui-column-person = Person
ui-column-verdicts = Verdicts
ui-column-frauds-found = Frauds found
ui-column-threshold = Threshold
ui-column-alerts-per-day = Alerts per day
ui-column-recall = Share of frauds found
ui-column-amount-caught = Fraudulent amount found

## Webhooks

ui-add-webhook = Add a webhook
ui-webhook-secret = Secret of the new webhook
ui-webhook-hint = whyflag posts signed notifications there, as the Standard Webhooks specification says.
ui-events = Events
ui-event = Event
ui-event-alert = new alert
ui-event-verdict = verdict
ui-failed-deliveries = Failed deliveries
ui-delivery-waiting = will be retried
ui-delivery-delivered = delivered later
ui-delivery-failed = given up
ui-attempts = Attempts
ui-repeat = Try again
