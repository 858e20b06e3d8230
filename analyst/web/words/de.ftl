# Words of the console.

ui-fraud-key = Betrug
ui-legitimate-key = legitim
ui-escalate-key = weitergeben
ui-queue = Warteschlange
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
    [one] einmal
   *[other] { $payments }-mal
 } verwendet vom { $first } bis zum { $last }
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
ui-verdict-given = Befund: { $finding }, von { $analyst } am { $when } UTC. Ein neuer Befund ersetzt ihn.
ui-typology-if-fraud = Art, falls Betrug
ui-note = Notiz
ui-in-words = In Worten
ui-written-by = Verfasst von { $names }. Jeder Satz besteht aus geprüften Tatsachen; { $replaced } von { $checked } vorgeschlagenen Sätzen { $replaced ->
    [one] wurde
   *[other] wurden
 } ersetzt.
ui-why = Warum
ui-cases = Ähnliche abgeschlossene Fälle
ui-no-cases = Vor diesem Alarm wurde kein ähnlicher Fall abgeschlossen.
ui-closed = abgeschlossen am { $when }
ui-shared = auch { $themes }
ui-no-difference = kein deutlicher Unterschied
ui-investigation = Untersuchung
ui-investigate = Das Sprachmodell nachsehen lassen
ui-investigate-hint = Es liest mit Werkzeugen, die nur lesen können, Zahlungen und Alarme dieser Karte und dieses Händlers sowie ähnliche Fälle. Es ordnet geprüfte Tatsachen an und entscheidet nichts.
ui-under-way = Läuft seit dem { $when } UTC …
ui-broken-down = Die von { $by } am { $when } UTC angeforderte Untersuchung ist abgebrochen: Das Protokoll der Konsole sagt, warum.
ui-nothing-passed = Nichts von dem, was es schrieb, bestand die Prüfung.
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
ui-top-reason = Stärkster Grund
ui-open-alerts = Offene Alarme
ui-counts = { $open } offen · { $fraud } Betrug · { $legitimate } legitim · { $escalated } weitergegeben
ui-card = Karte
ui-previous = zurück
ui-next = weiter
ui-order-hint = Sortiert nach erwartetem Verlust: Betrugswahrscheinlichkeit mal Betrag.
ui-empty-queue = Keine offenen Alarme. Neue erscheinen hier von selbst.
ui-move = bewegen
ui-open-alert = öffnen
ui-score-picture = Beiträge zum Score in Log-Odds
ui-amounts-picture = Beträge der letzten Zahlungen der Karte in { $currency }, nach dem zeitlichen Abstand zu dieser
ui-this = diese Zahlung
ui-before-this = { $ago } davor
ui-honest = legitim
ui-frauds = Betrug
ui-points = Punkte
ui-rarity-hint = Wie viele der legitimen Zahlungen und der Betrugsfälle in den Trainingsdaten einen mindestens so extremen Wert haben
ui-higher-than-all = { $amount }: höher als bei allen
