# Words of the console.

ui-outcome = Ergebnis
ui-probability = Wahrscheinlichkeit
ui-expected-loss = Erwarteter Verlust
ui-reasons = Gründe nach Themen
ui-without = ohne das Thema { $share }
ui-nothing-telling = nichts, was Betrug von legitimen Zahlungen unterscheidet
ui-on-its-way = Die Erklärung ist unterwegs.
ui-reasons-hint = Punkte sind Log-Odds: Rot spricht für Betrug, Blau dagegen. „Ohne das Thema“ ist die Wahrscheinlichkeit, wenn das Thema nichts aussagen würde. Anteile beziehen sich auf die Zahlungen, mit denen das Modell trainiert wurde.
ui-habits = Gewohnheiten im Vergleich zu dieser Zahlung
ui-usual = Üblich
ui-this-payment = Diese Zahlung
ui-amount = Betrag
ui-time = Zeit (UTC)
ui-channel = Zahlungsweg
ui-category = Branche
ui-place = Ort
ui-device = Gerät
ui-merchant = Dieser Händler
ui-habit-amount = Hälfte bis { $median }, 95 % bis { $high }
ui-higher-than = { $amount }: höher als bei { $rank }
ui-no-amount = keine frühere Zahlung in dieser Währung
ui-habit-hours = 0–6 Uhr { $a }, 6–12 Uhr { $b }, 12–18 Uhr { $c }, 18–24 Uhr { $d }
ui-habit-online = { $share } online
ui-habit-home = { $share } im Umkreis von { $near } um das Heimatgebiet
ui-from-home = { $distance } von dort
ui-device-used = { $payments ->
    [one] einmal verwendet, am { $first }
   *[other] { $payments }-mal verwendet, vom { $first } bis zum { $last }
 }
ui-more-devices = { $n ->
    [one] 1 weiteres
   *[other] { $n } weitere
 }
ui-device-new = mit dieser Karte noch nicht verwendet
ui-device-shared = mit { $cards ->
    [one] 1 anderen Karte
   *[other] { $cards } anderen Karten
 } verwendet
ui-merchant-history = { $payments ->
    [one] 1 Zahlung
   *[other] { $payments } Zahlungen
 } mit { $cards ->
    [one] 1 Karte
   *[other] { $cards } Karten
 }; { $frauds ->
    [0] kein gemeldeter Betrug
    [one] 1 gemeldeter Betrugsfall
   *[other] { $frauds } gemeldete Betrugsfälle mit { $cards_with_fraud ->
        [one] 1 Karte
       *[other] { $cards_with_fraud } Karten
     }
 }
ui-here-before = { $payments ->
    [one] 1 frühere Zahlung
   *[other] { $payments } frühere Zahlungen
 } dieser Karte
ui-here-largest = { $payments ->
    [one] 1 frühere Zahlung
   *[other] { $payments } frühere Zahlungen
 } dieser Karte, höchstens { $largest }
ui-here-new = keine frühere Zahlung dieser Karte
ui-payments-in-days = { $payments ->
    [one] 1 Zahlung
   *[other] { $payments } Zahlungen
 } in { $days ->
    [one] 1 Tag
   *[other] { $days } Tagen
 }
ui-archive-behind = Das Archiv enthält diese Zahlung noch nicht: Hier können Zahlungen fehlen.
ui-archive-missing = Das Archiv fehlt oder antwortet nicht: Gewohnheiten, Händlernamen und Geräte können nicht gezeigt werden.
ui-no-payments = Das Archiv enthält keine frühere Zahlung dieser Karte.
ui-last-payments = Letzte Zahlungen dieser Karte
ui-before = Davor
ui-from-home-heading = Vom Heimatgebiet
ui-known = bekannt
ui-new = neu
ui-another = ein anderer
ui-no-recent = Eine frühere Zahlung dieser Karte ist nicht bekannt.
ui-verdict = Befund
ui-typology-if-fraud = Art, falls Betrug
ui-note = Notiz
ui-in-words = In Worten
ui-written-by = Verfasst von { $names }. Jeder Satz besteht aus geprüften Tatsachen; { $replaced } von { $checked } vorgeschlagenen Sätzen { $replaced ->
    [one] wurde
   *[other] wurden
 } verworfen.
ui-why = Warum
ui-cases = Ähnliche abgeschlossene Fälle
ui-no-cases = Vor diesem Alarm wurde kein ähnlicher Fall abgeschlossen.
ui-closed = abgeschlossen am { $when }
ui-shared = auch { $themes }
ui-no-difference = kein deutlicher Unterschied
ui-investigation = Untersuchung
ui-investigate-hint = Der Assistent liest die Zahlungen und Alarme dieser Karte und dieses Händlers sowie ähnliche Fälle; ändern kann er nichts. Er stellt geprüfte Tatsachen zusammen und entscheidet nichts.
ui-under-way = Läuft seit dem { $when } UTC …
ui-broken-down = Die Untersuchung, die { $by } am { $when } UTC gestartet hat, ist fehlgeschlagen: siehe Protokoll der Konsole.
ui-nothing-passed = Keiner seiner Sätze hat die Prüfung bestanden.
ui-transcript = Mitschrift
ui-others = Weitere Alarme dieser Karte, dieses Geräts und dieses Händlers
ui-same-card = dieselbe Karte
ui-same-device = dasselbe Gerät
ui-same-merchant = derselbe Händler
ui-open = offen
ui-none = Keine.
ui-facts = Alle Tatsachen
ui-decline = abgelehnt
ui-review = zu prüfen
ui-approve = genehmigt
ui-finding-fraud = Betrug
ui-finding-legitimate = legitim
ui-finding-escalate = weitergeben
ui-merchant-column = Händler
ui-card = Karte
ui-previous = zurück
ui-next = weiter
ui-empty-queue = Keine passenden Alarme. Neue erscheinen hier automatisch.
ui-score-picture = Beiträge zum Score in Log-Odds
ui-amounts-picture = Beträge der letzten Zahlungen der Karte in { $currency }, nach dem zeitlichen Abstand zu dieser
ui-this = diese Zahlung
ui-before-this = { $ago } davor
ui-honest = legitim
ui-frauds = Betrug
ui-points = Punkte
ui-rarity-hint = Wie viele der legitimen Zahlungen und der Betrugsfälle in den Trainingsdaten einen mindestens so extremen Wert haben
ui-higher-than-all = { $amount }: höher als bei allen

## Der Rahmen jeder Seite

ui-nav-queue = Warteschlange
ui-nav-lists = Listen
ui-nav-leads = Teamleitung
ui-nav-audit = Prüfprotokoll
ui-nav-users = Benutzer
ui-nav-webhooks = Webhooks
ui-navigation = Seiten
ui-skip = Zum Inhalt springen
ui-request-failed = Die Anfrage ist fehlgeschlagen
ui-back-to-queue = Zurück zur Warteschlange
ui-close = Schließen
ui-action = Aktion
ui-state = Status
ui-error = Fehler
ui-number = Nr.
ui-reason = Begründung
ui-value = Wert
ui-kind = Art
ui-show = Anzeigen
ui-change = Ändern
ui-remove = Entfernen
ui-days = Gültig für (Tage)
ui-label = Bezeichnung
ui-address = Adresse
ui-subject = Objekt
ui-detail = Einzelheiten
ui-result = Ergebnis
ui-alert = Alarm
ui-alerts = Alarme
ui-undo = Rückgängig machen

## Tasten

ui-help-title = Tastenkürzel
ui-help-move = in der Warteschlange nach unten und oben gehen
ui-help-open = markierten Alarm öffnen
ui-help-pages = vorige und nächste Seite
ui-help-next = nächsten Alarm übernehmen und öffnen
ui-help-search = suchen
ui-help-queue = zurück zur Warteschlange
ui-help-verdict = Befund erfassen: Betrug, legitim oder weitergeben
ui-help-fields = Betrugsart oder Abschlussgrund wählen, Notiz schreiben
ui-help-undo = letzten Befund rückgängig machen
ui-help-claim = Alarm übernehmen oder zurückgeben, Dauer der Zurückstellung wählen
ui-help-escape = Eingabefeld verlassen
ui-help-help = diese Übersicht anzeigen

## Zugang

ui-sign-in = Anmelden
ui-sign-in-provider = Mit dem Konto Ihrer Organisation anmelden
ui-sign-out = Abmelden
ui-sign-out-everywhere = Auf allen Geräten abmelden
ui-user-name = Benutzername
ui-password = Passwort
ui-new-password = Neues Passwort
ui-password-again = Neues Passwort wiederholen
ui-password-hint = Wählen Sie mindestens 12 Zeichen. Ein ganzer Satz lässt sich leicht merken.
ui-passwords-differ = Die beiden Passwörter stimmen nicht überein.
ui-set-password = Passwort festlegen
ui-invitation = Willkommen bei whyflag
ui-account = Konto
ui-tokens = API-Tokens
ui-new-token = Neues Token
ui-shown-once = Jetzt kopieren: Der Wert wird nur dieses eine Mal angezeigt.
ui-create-token = Token erstellen
ui-scopes = Berechtigungen
ui-revoke = Widerrufen
ui-expires = läuft am { $when } ab
ui-role = Rolle
ui-role-analyst = Analyse
ui-role-lead = Teamleitung
ui-role-admin = Administration
ui-role-auditor = Revision
ui-invite = Einladen
ui-invited = Eingeladen
ui-link-hint = Senden Sie diesen Link an den Benutzer. Er gilt 24 Stunden, lässt sich nur einmal verwenden und wird nur jetzt angezeigt.
ui-invite-hint = Mit der Einladung legt ein bereits vorhandener Benutzer ein neues Passwort fest; seine laufenden Sitzungen werden beendet.
ui-add-proxied = Ohne Passwort anlegen
ui-with-password = mit Passwort
ui-without-password = ohne Passwort
ui-disabled = deaktiviert

## Die Warteschlange

ui-section = Bereich
ui-section-open = Offen
ui-section-mine = Meine
ui-section-snoozed = Zurückgestellt
ui-section-escalated = Weitergegeben
ui-section-closed = Abgeschlossen
ui-section-all = Alle
ui-queue-summary = { $shown } angezeigt · { $breaches } überfällig
ui-order = Sortierung
ui-order-priority = Schweregrad, dann Frist
ui-order-loss = erwarteter Verlust
ui-order-deadline = Frist
ui-order-time = neueste zuerst
ui-order-hint-priority = Sortiert nach Schweregrad, dann nach Frist. Der Schweregrad richtet sich nach dem erwarteten Verlust.
ui-order-hint-loss = Sortiert nach erwartetem Verlust: Betrugswahrscheinlichkeit mal Betrag.
ui-order-hint-deadline = Sortiert nach Frist.
ui-order-hint-time = Sortiert nach dem Zeitpunkt der Zahlung, neueste zuerst.
ui-severity-critical = kritisch
ui-severity-high = hoch
ui-severity-normal = normal
ui-due = Fällig
ui-due-in = fällig in { $time }
ui-state-escalated = weitergegeben
ui-overdue = überfällig seit { $time }
ui-loss-calculation = { $probability } von { $amount }
ui-why-here = Warum dieser Alarm?
ui-no-single-reason = Keine einzelne Tatsache erklärt diesen Alarm.
ui-closed-by = { $finding }, von { $name }
ui-claimed-by = in Bearbeitung bei { $name }
ui-yours = in Bearbeitung bei Ihnen
ui-snoozed-until = zurückgestellt bis { $time } UTC
ui-more-than = mehr als { $n }
ui-more-of-card = weitere offene Alarme dieser Karte: { $n }
ui-search = Suche
ui-search-hint = Zahlung, Karte, Händler oder Alarm (Anfang genügt)
ui-filters = Filter
ui-more-filters = Weitere Filter
ui-any = alle
ui-by-card = nach Karte gruppieren
ui-typology = Wahrscheinliche Betrugsart
ui-assignee = Übernommen von
ui-amount-from = Betrag ab
ui-amount-to = Betrag bis
ui-age-from = Alter ab (Stunden)
ui-age-to = Alter bis (Stunden)
ui-view-name = Name der Ansicht
ui-shared-view = für alle
ui-save-view = Als Ansicht speichern
ui-delete-view = Ansicht löschen
ui-first-page = Zur ersten Seite
ui-skip-alert = Überspringen
ui-open-next = Nächsten Alarm öffnen
ui-judge-all = Alle angezeigten beurteilen

## Befunde

ui-closing-reason = Abschlussgrund
ui-reason-customer_denied = Kunde bestreitet die Zahlung
ui-reason-customer_confirmed = Kunde bestätigt die Zahlung
ui-reason-known_pattern = bekanntes Betrugsmuster
ui-reason-usual_behaviour = für diese Karte übliches Verhalten
ui-reason-merchant_confirmed = Händler bestätigt die Zahlung
ui-reason-duplicate = Duplikat eines anderen Alarms
ui-reason-needs_senior = Entscheidung der Teamleitung nötig
ui-reason-other = sonstiger Grund
ui-verdict-waiting = kann rückgängig gemacht werden
ui-verdict-leaving = wird gesendet
ui-verdict-published = gesendet
ui-verdict-undone = rückgängig gemacht
ui-verdict-recorded = Befund „{ $finding }“ erfasst. Er lässt sich noch { $left } lang rückgängig machen.
ui-claim = Übernehmen
ui-release = Zurückgeben
ui-snooze = Zurückstellen
ui-snooze-for = Zurückstellen für
ui-wake = Zurückstellung beenden
ui-escalated-to-leads = weitergegeben: Die Teamleitung entscheidet
ui-conflict = Zwei Befunde zu einem Alarm
ui-conflict-hint = Der Alarm hat sich geändert, nachdem Sie ihn geöffnet haben. Vergleichen Sie beide Befunde und wählen Sie einen aus.
ui-their-verdict = Geltender Befund
ui-your-verdict = Ihr Befund, nicht erfasst
ui-verdict-was-undone = Der frühere Befund wurde rückgängig gemacht: Der Alarm ist wieder offen.
ui-keep-theirs = Beibehalten und Alarm öffnen
ui-give-mine = Stattdessen meinen Befund erfassen
ui-bulk = Ein Befund für viele Alarme
ui-bulk-preview = Die ersten Alarme
ui-bulk-none = Der Filter zeigt keinen offenen Alarm.
ui-bulk-too-many = Der Filter zeigt mehr als 10.000 Alarme: Grenzen Sie ihn ein.
ui-bulk-hint = Der Befund gilt für alle Alarme des Filters, die seit dieser Vorschau niemand sonst übernommen oder geändert hat.
ui-bulk-title = Sammelbefund Nr. { $number }: { $finding }, von { $by } am { $when } UTC
ui-bulk-was-undone = Dieser Befund wurde rückgängig gemacht.
ui-bulk-recent = Letzte Sammelbefunde
ui-bulk-waiting = noch nicht beurteilt
ui-bulk-done = beurteilt
ui-bulk-claimed = ausgelassen: in Bearbeitung
ui-bulk-changed = ausgelassen: inzwischen geändert
ui-bulk-undone = rückgängig gemacht
ui-bulk-left = nicht rückgängig gemacht: Befund schon gesendet oder ersetzt

## Der Assistent

ui-assistant = Frage zu diesem Alarm
ui-question = Frage
ui-question-hint = ohne Frage untersucht der Assistent den Alarm
ui-ask = Fragen
ui-answer-figures = { $model } · { $steps ->
    [one] { $steps } Antwort
   *[other] { $steps } Antworten
 } · { $tokens } Tokens · { $time } · { $checked ->
    [one] { $checked } Satz
   *[other] { $checked } Sätze
 } geprüft, { $refused } verworfen
ui-fact = Tatsache
ui-habit = Gewohnheit

## Karten, Händler und Geräte

ui-card-page = Karte
ui-merchant-page = Händler
ui-device-page = Gerät
ui-kind-card = Karte
ui-kind-merchant = Händler
ui-kind-device = Gerät
ui-alerts-open = offene Alarme
ui-payments = Zahlungen in 90 Tagen
ui-cards = Karten in 90 Tagen
ui-devices = Geräte
ui-reported-frauds = gemeldete Betrugsfälle
ui-online-share = online
ui-all-alerts = Alle Alarme in der Warteschlange
ui-ago = Vor
ui-links = Verbindungen über Alarme
ui-links-picture = Karten, Händler und Geräte, die mit { $value } Alarme gemeinsam haben
ui-links-table = Verbindungen als Tabelle
ui-linked-to = Verbunden mit
ui-with-fraud = mit Betrug
ui-hidden-nodes = { $n } weitere ausgeblendet.
ui-hops-1 = Nur direkte Verbindungen anzeigen
ui-hops-2 = Auch Verbindungen zweiten Grades anzeigen
ui-on-list-block = Bis { $until } auf der Sperrliste.
ui-on-list-allow = Bis { $until } auf der Positivliste.

## Listen und nächste Schritte

ui-lists-hint = Regeln verweisen auf diese Listen mit Namen wie block_card und allow_merchant. Eine Änderung wird wirksam, sobald eine andere Person sie genehmigt hat.
ui-list = Liste
ui-list-block = Sperrliste
ui-list-allow = Positivliste
ui-entries = Einträge
ui-expires-on = Läuft ab am
ui-proposals = Vorschläge
ui-all-proposals = alle anzeigen
ui-only-pending = nur ausstehende anzeigen
ui-propose = Vorschlagen
ui-propose-entry = Listeneintrag vorschlagen
ui-propose-removal = Entfernen vorschlagen
ui-proposal-add = { $value } bis { $until } auf die { $list } setzen
ui-proposal-remove = { $value } von der { $list } nehmen
ui-proposal-steps = Tabelle der nächsten Schritte ersetzen
ui-proposed-by = vorgeschlagen von { $name } am { $when } UTC
ui-proposal-pending = ausstehend
ui-proposal-approved = genehmigt von { $name }
ui-proposal-rejected = abgelehnt von { $name }
ui-proposal-withdrawn = zurückgezogen von { $name }
ui-approve-proposal = Genehmigen
ui-reject = Ablehnen
ui-withdraw = Zurückziehen
ui-next-steps = Nächste Schritte
ui-next-steps-hint = Für einen Alarm wird der erste Schritt vorgeschlagen, dessen Bedingungen erfüllt sind. Eine genehmigte Tabelle gilt spätestens nach 30 Sekunden für neue Alarme.

## Teamleitung

ui-figure-backlog = wartend
ui-figure-breached = überfällig
ui-figure-raised = ausgelöst pro Tag
ui-figure-closed = abgeschlossen pro Tag
ui-figure-days-of-work = Rückstand in Tagen
ui-figure-median = Median der Zeit bis zum Befund
ui-figure-verdicts = Befunde
ui-verdict-mix = { $fraud } Betrug · { $legitimate } legitim · { $escalated } weitergegeben
ui-work-picture = Ausgelöste und abgeschlossene Alarme pro Tag
ui-table-backlog = Rückstand
ui-table-work = Tagesübersicht
ui-table-themes = Präzision nach Thema
ui-table-rules = Präzision nach Regel
ui-table-bundles = Präzision nach Modell
ui-table-people = Befunde nach Person
ui-table-thresholds = Wirkung anderer Schwellenwerte (Backtest des Modells)
ui-column-severity = Schweregrad
ui-column-open-count = Offen
ui-column-escalated-count = Weitergegeben
ui-column-breached = Überfällig
ui-column-oldest = Höchstes Alter
ui-column-day = Tag
ui-column-raised = Ausgelöst
ui-column-closed = Abgeschlossen
ui-column-closed-late = Verspätet abgeschlossen
ui-column-theme = Thema
ui-column-rule = Regel
ui-column-bundle = Modell
ui-column-frauds = Betrugsfälle
ui-column-legitimate = Legitim
ui-column-precision = Präzision
ui-column-person = Person
ui-column-verdicts = Befunde
ui-column-frauds-found = Erkannte Betrugsfälle
ui-column-threshold = Schwellenwert
ui-column-alerts-per-day = Alarme pro Tag
ui-column-recall = Erkannte Betrugsfälle
ui-column-amount-caught = Erkannter Betrugsbetrag

## Webhooks

ui-add-webhook = Webhook hinzufügen
ui-webhook-secret = Geheimer Schlüssel des neuen Webhooks
ui-webhook-hint = whyflag sendet an diese Adresse signierte Benachrichtigungen gemäß der Spezifikation „Standard Webhooks“.
ui-events = Ereignisse
ui-event = Ereignis
ui-event-alert = neuer Alarm
ui-event-verdict = Befund
ui-failed-deliveries = Fehlgeschlagene Zustellungen
ui-delivery-waiting = wird wiederholt
ui-delivery-delivered = später zugestellt
ui-delivery-failed = endgültig fehlgeschlagen
ui-attempts = Versuche
ui-repeat = Erneut versuchen
