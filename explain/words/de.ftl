# Deutsch. Aufbau und Namen wie in en.ftl.

## Wovon eine Tatsache handelt

this-subject = { $subject ->
    [merchant] dieser Händler
    [device] dieses Gerät
   *[card] diese Karte
 }
of-subject = { $subject ->
    [merchant] dieses Händlers
    [device] dieses Geräts
   *[card] dieser Karte
 }
at-subject = { $subject ->
    [merchant] bei diesem Händler
    [device] mit diesem Gerät
   *[card] mit dieser Karte
 }

## Zeitspannen, im Dativ: $window_n und $window_unit

window = { $window_unit ->
    [day] { $window_n ->
        [one] 1 Tag
       *[other] { $window_n } Tagen
     }
    [hour] { $window_n ->
        [one] 1 Stunde
       *[other] { $window_n } Stunden
     }
    [minute] { $window_n ->
        [one] 1 Minute
       *[other] { $window_n } Minuten
     }
   *[second] { $window_n ->
        [one] 1 Sekunde
       *[other] { $window_n } Sekunden
     }
 }

## Ein Wert neben dem Üblichen und neben redlichen und betrügerischen Zahlungen

with-usual = { $words }, üblich: { $usual }
with-label = { $label }: { $value }
honest-percent = { $share } der redlichen Zahlungen
honest-one-in = 1 von { $n } redlichen Zahlungen
honest-none = keine der erfassten redlichen Zahlungen
fraud-percent = { $share } der Betrugsfälle
fraud-one-in = 1 von { $n } Betrugsfällen
fraud-none = keiner der erfassten Betrugsfälle
contrast-high = mindestens so hoch: { $honest }, { $fraud }
contrast-low = höchstens so hoch: { $honest }, { $fraud }
contrast-flag = das gilt für { $honest } und { $fraud }
contrast-late = um diese Uhrzeit oder später: { $honest }, { $fraud }
contrast-early = um diese Uhrzeit oder früher: { $honest }, { $fraud }
contrast-long = mindestens so lange: { $honest }, { $fraud }
contrast-recent = höchstens so lange: { $honest }, { $fraud }
yes = ja
no = nein
unknown = unbekannt

## Sätze

capital-after-colon = yes
opening-also = außerdem: { $rest }
opening-however = dagegen: { $rest }
opening-for-fraud = für Betrug spricht: { $rest }
opening-against-fraud = gegen Betrug spricht: { $rest }
opening-strongest-for-fraud = am stärksten für Betrug spricht: { $rest }
opening-strongest-against-fraud = am stärksten gegen Betrug spricht: { $rest }
opening-usual = für diese Karte üblich: { $rest }
joiner-and = { $left } und { $right }
joiner-but = { $left }, aber { $right }
joiner-semicolon = { $left }; { $right }
joiner-comma = { $left }, { $right }
with-contrast = { $words } ({ $contrast })
part-what_happened = Was geschah
part-why_unusual = Warum es ungewöhnlich ist
part-similar_cases = Ähnliche Fälle
part-speaks_against = Was gegen Betrug spricht
part-next_step = Nächster Schritt

## Themen

code-theme-amount = Betrag und Gewohnheit der Karte
code-theme-pace = Tempo der Zahlungen
code-theme-small-amounts = Kleine Testbeträge
code-theme-place = Ort und Reise
code-theme-device = Gerät und Zahlungsweg
code-theme-time = Tageszeit
code-theme-merchant-kind = Art des Händlers
code-theme-reported-fraud = Gemeldeter Betrug
code-theme-merchant-activity = Umsatz und Preise des Händlers

## Kennwörter

code-online = online
code-card-present = mit vorgelegter Karte
code-unknown = auf unbekanntem Weg
code-no-country = einem unbekannten Land
code-fraud = Betrug
code-legitimate = kein Betrug
code-field-mcc = die Branche
code-field-country = das Land
code-field-channel = der Zahlungsweg
code-field-device = das Gerät
code-card-testing = Kartentest
code-stolen-card = gestohlene Karte
code-compromised-terminal = manipuliertes Terminal
code-account-takeover = Kontoübernahme
code-impossible-travel = unmögliche Reise
code-slow-skimming = schleichender Kartenmissbrauch
code-friendly-fraud = bestrittene eigene Zahlung
code-other = andere Art

## Die Zahlung und ihr Score

payment =
    .clause = { $amount } wurden { $channel } bezahlt (Land: { $country }, { $when } UTC)
    .short = { $amount } { $channel } am { $when } UTC
payment-first =
    .clause = eine frühere Zahlung dieser Karte ist nicht bekannt
    .short = keine frühere Zahlung
payment-recent =
    .clause = { $hour ->
        [0] keine
       *[other] { $hour }
     } der letzten { $recent } Zahlungen der Karte { $hour ->
        [0] lag
        [one] lag
       *[other] lagen
     } in der Stunde davor
    .short = { $hour } von { $recent } Zahlungen in der Stunde davor
score =
    .clause = die Betrugswahrscheinlichkeit beträgt nach dem Modell { $probability }: von 100 Zahlungen mit diesem Score { $hundred ->
        [0] ist weniger als 1
        [one] ist etwa 1
       *[other] sind etwa { $hundred }
     } Betrug (Prüfung ab { $review })
    .short = eine Betrugswahrscheinlichkeit von { $probability }
score-few =
    .clause = die Betrugswahrscheinlichkeit beträgt nach dem Modell { $probability }, aus wenigen vergleichbaren Zahlungen: zwischen { $low } und { $high } von 100 sind Betrug (Prüfung ab { $review })
    .short = eine Betrugswahrscheinlichkeit von { $probability } aus wenigen vergleichbaren Zahlungen
score-elsewhere =
    .clause = ein anderes Modell gab eine Betrugswahrscheinlichkeit von { $probability } an
    .short = eine Betrugswahrscheinlichkeit von { $probability } nach einem anderen Modell
unscored =
    .clause = kein Modell konnte diese Zahlung bewerten, daher ging sie zur Prüfung
    .short = kein Score
doubt-late =
    .clause = die Zeit dieser Zahlung liegt weiter zurück, als der Datenstrom zulässt; was um sie herum geschah, ist nur teilweise bekannt, daher ging sie zur Prüfung
    .short = eine zu weit zurückliegende Zeit
doubt-reused =
    .clause = die Karte hat die Kennung dieser Zahlung schon für einen anderen Kauf verwendet, daher ging sie zur Prüfung
    .short = eine wiederverwendete Zahlungskennung
doubt-currency =
    .clause = für { $currency } gibt es keinen Wechselkurs, daher zählten Beträge nicht für den Score
    .short = kein Wechselkurs für { $currency }
other-bundle =
    .clause = dieser Alarm stammt von Modell { $raised }, und hier läuft Modell { $here }; die Gründe des Scores sind daher nicht bekannt
    .short = ein Score eines anderen Modells
novel =
    .clause = die Zahlung als Ganzes gleicht keiner der Trainingsdaten
    .short = eine Zahlung ohne Vorbild in den Trainingsdaten
rule =
    .clause = die Regel { $rule } trifft auf diese Zahlung zu
    .short = die Regel { $rule }
missing =
    .clause = { $field } wurde mit dieser Zahlung nicht angegeben
    .short = { $field } fehlt
theme =
    .clause = „{ $theme }“ { $side ->
        [fraud] erhöht
        [legitimate] senkt
       *[neither] verändert nicht
     } den Score; ohne dieses Thema läge die Wahrscheinlichkeit bei { $without }
    .short = „{ $theme }“
balance =
    .clause = { $fraud } der Themen hinter dem Score sprechen für Betrug und { $against } dagegen
    .short = { $fraud } Themen für Betrug und { $against } dagegen
balance-one-sided =
    .clause = kein Thema hinter dem Score spricht gegen Betrug
    .short = kein Thema gegen Betrug
earlier =
    .clause = { $text }
    .short = { $text }
step =
    .clause = { $text_de }
    .short = { $text_de }

## Merkmale

feature-amount =
    .clause = der Betrag ist { $value }
    .label = Betrag
feature-hour =
    .clause = es geschah um { $value } UTC
    .label = Uhrzeit
feature-weekday =
    .clause = es geschah an einem { $value }
    .label = Wochentag
feature-weekend =
    .clause = es geschah { $value ->
        [yes] an einem Wochenende
       *[no] an einem Werktag
     }
    .label = Wochenende
feature-night =
    .clause = es geschah { $value ->
        [yes] nachts
       *[no] nicht nachts
     } (UTC)
    .label = nachts
feature-online =
    .clause = { $value ->
        [yes] es wurde online bezahlt
       *[no] die Karte lag beim Händler vor
     }
    .label = online
feature-count =
    .clause = { this-subject } hatte { $value ->
        [one] 1 Zahlung
       *[other] { $value } Zahlungen
     } in { window }
    .label = Zahlungen in { window }
feature-amount-sum =
    .clause = { $subject ->
        [merchant] dieser Händler nahm
       *[card] diese Karte gab
     } { $value } in { window } { $subject ->
        [merchant] ein
       *[card] aus
     }
    .label = Summe in { window }
feature-amount-mean =
    .clause = der mittlere Betrag { of-subject } in { window } ist { $value }
    .label = mittlerer Betrag in { window }
feature-amount-ratio =
    .clause = der Betrag ist das { $value }-Fache des mittleren Betrags { of-subject } in { window }
    .label = Betrag zum Mittel aus { window }
feature-low-count =
    .clause = { this-subject } hatte { $value ->
        [one] 1 sehr kleine Zahlung
       *[other] { $value } sehr kleine Zahlungen
     } in { window }
    .label = sehr kleine Zahlungen in { window }
feature-low-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } waren sehr klein
    .label = Anteil sehr kleiner Zahlungen in { window }
feature-amount-max =
    .clause = der höchste Betrag { of-subject } in { window } ist { $value }
    .label = höchster Betrag in { window }
feature-amount-to-max =
    .clause = der Betrag ist das { $value }-Fache des höchsten { of-subject } in { window } davor
    .label = Betrag zum höchsten aus { window }
feature-amount-zscore =
    .clause = der Betrag liegt { $value } Standardabweichungen vom Mittel { of-subject } in { window } entfernt
    .label = Abweichung des Betrags, { window }
feature-distinct-merchants =
    .clause = { this-subject } bezahlte in { window } bei { $value ->
        [one] 1 Händler
       *[other] { $value } verschiedenen Händlern
     }
    .label = Händler in { window }
feature-distinct-countries =
    .clause = { this-subject } wurde in { window } in { $value ->
        [one] 1 Land
       *[other] { $value } Ländern
     } verwendet
    .label = Länder in { window }
feature-new-merchant =
    .clause = { this-subject } hatte { $value ->
        [yes] noch nie
       *[no] schon einmal
     } in { window } davor bei diesem Händler bezahlt
    .label = neuer Händler
feature-new-country =
    .clause = { this-subject } war { $value ->
        [yes] noch nie
       *[no] schon einmal
     } in { window } davor in diesem Land verwendet worden
    .label = neues Land
feature-category-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } davor gehörten zu dieser Branche
    .label = Anteil dieser Branche
feature-night-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } davor waren nachts
    .label = Anteil nachts
feature-online-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } davor waren online
    .label = Anteil online
feature-burst =
    .clause = die Aktivität { of-subject } in { window } ist das { $value }-Fache der üblichen
    .label = Aktivität in { window } zur üblichen
feature-fraud-count =
    .clause = { $value ->
        [one] 1 Zahlung { of-subject } in { window } ist
       *[other] { $value } Zahlungen { of-subject } in { window } sind
     } als Betrug bekannt
    .label = bekannte Betrugsfälle in { window }
feature-fraud-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } sind als Betrug bekannt
    .label = Anteil bekannter Betrugsfälle in { window }
feature-max-to-normal =
    .clause = der höchste Betrag { of-subject } in { window } davor ist das { $value }-Fache des normalen
    .label = höchster Betrag aus { window } zum normalen
feature-unusual-count =
    .clause = { this-subject } hatte { $value ->
        [one] 1 Zahlung mit ungewöhnlichem Betrag
       *[other] { $value } Zahlungen mit ungewöhnlichen Beträgen
     } in { window } davor
    .label = ungewöhnliche Beträge in { window }
feature-first-unusual =
    .clause = der erste ungewöhnliche Betrag { of-subject } in { window } davor liegt { $value } Tage zurück
    .label = Tage seit dem ersten ungewöhnlichen Betrag in { window }
feature-last-unusual =
    .clause = der letzte ungewöhnliche Betrag { of-subject } in { window } davor liegt { $value } Tage zurück
    .label = Tage seit dem letzten ungewöhnlichen Betrag in { window }
feature-first-fraud =
    .clause = der erste bekannte Betrug { of-subject } in { window } liegt { $value } Tage zurück
    .label = Tage seit dem ersten bekannten Betrug in { window }
feature-last-fraud =
    .clause = der letzte bekannte Betrug { of-subject } in { window } liegt { $value } Tage zurück
    .label = Tage seit dem letzten bekannten Betrug in { window }
feature-seconds-since-last =
    .clause = die Zahlung davor lag { $value } zurück
    .label = Zeit seit der letzten Zahlung
feature-distance =
    .clause = der Ort ist { $value } vom Ort der Zahlung davor entfernt
    .label = Entfernung vom letzten Ort
feature-speed =
    .clause = der Weg vom Ort der Zahlung davor erfordert { $value }
    .label = Reisegeschwindigkeit
feature-new-device =
    .clause = { this-subject } war { $value ->
        [yes] noch nie
       *[no] schon einmal
     } mit diesem Gerät verwendet worden
    .label = neues Gerät
feature-amount-to-normal =
    .clause = der Betrag ist das { $value }-Fache des normalen { of-subject }
    .label = Betrag zum normalen
feature-recent-to-normal =
    .clause = das Mittel der letzten drei Beträge { of-subject } ist das { $value }-Fache des normalen
    .label = letzte Beträge zum normalen
feature-fraud-reports =
    .clause = { at-subject } { $value ->
        [one] wurde 1 Betrugsfall
       *[other] wurden { $value } Betrugsfälle
     } in { window } gemeldet
    .label = gemeldete Betrugsfälle in { window }
feature-fraud-report-share =
    .clause = die geglättete Rate gemeldeter Betrugsfälle { at-subject } in { window } ist { $value }
    .label = Rate gemeldeter Betrugsfälle in { window }
feature-usual-fraud-count =
    .clause = { $value ->
        [one] 1 Zahlung { of-subject } in { window } ist als Betrug bekannt, obwohl ihr Betrag für ihre Karte üblich war
       *[other] { $value } Zahlungen { of-subject } in { window } sind als Betrug bekannt, obwohl ihre Beträge für ihre Karten üblich waren
     }
    .label = bekannte Betrugsfälle mit üblichem Betrag in { window }
feature-usual-fraud-share =
    .clause = { $value } der Zahlungen { of-subject } in { window } sind als Betrug bekannt, obwohl ihre Beträge für ihre Karten üblich waren
    .label = Anteil bekannter Betrugsfälle mit üblichem Betrag in { window }
feature-first-usual-fraud =
    .clause = der erste bekannte Betrug { of-subject } in { window } mit einem für die Karte üblichen Betrag liegt { $value } Tage zurück
    .label = Tage seit dem ersten Betrug mit üblichem Betrag in { window }
feature-last-usual-fraud =
    .clause = der letzte bekannte Betrug { of-subject } in { window } mit einem für die Karte üblichen Betrag liegt { $value } Tage zurück
    .label = Tage seit dem letzten Betrug mit üblichem Betrag in { window }
feature-last-legitimate =
    .clause = die letzte Zahlung { of-subject } in { window }, die nicht als Betrug bekannt ist, liegt { $value } Tage zurück
    .label = Tage seit der letzten nicht als Betrug bekannten Zahlung in { window }

## Die Vergangenheit

archive-missing =
    .clause = das Archiv früherer Zahlungen war nicht lesbar, daher sind Gewohnheiten und Vorgeschichten nicht bekannt
    .short = kein Archiv früherer Zahlungen
archive-behind =
    .clause = das Archiv enthält diese Zahlung noch nicht, daher können die letzten Zahlungen in Gewohnheiten und Vorgeschichten fehlen
    .short = ein Archiv im Rückstand
archive-young =
    .clause = das Archiv reicht nur { $days ->
        [one] 1 Tag
       *[other] { $days } Tage
     } zurück
    .short = ein Archiv von { $days ->
        [one] 1 Tag
       *[other] { $days } Tagen
     }
habit-none =
    .clause = das Archiv enthält keine Zahlung dieser Karte { $days ->
        [one] am Tag
       *[other] in den { $days } Tagen
     } davor
    .short = keine frühere Zahlung dieser Karte
habit-amount =
    .clause = von { $payments ->
        [one] 1 Zahlung
       *[other] { $payments } Zahlungen
     } dieser Karte liegt die Hälfte bei höchstens { $median }, 95 % bei höchstens { $high }; dieser Betrag ist höher als { $rank } davon
    .short = übliche Beträge bis { $median } (Hälfte) und { $high } (95 %)
habit-hours =
    .clause = { $share } der Zahlungen dieser Karte liegen wie diese zwischen { $begin } und { $end } UTC
    .short = { $share } der Zahlungen zwischen { $begin } und { $end } UTC
habit-channel =
    .clause = { $share } der Zahlungen dieser Karte geschehen wie diese { $channel }
    .short = { $share } der Zahlungen { $channel }
habit-category =
    .clause = { $share } der Zahlungen dieser Karte gehören wie diese zur Branche { $category }
    .short = { $share } der Zahlungen in der Branche { $category }
habit-place =
    .clause = diese Zahlung geschah { $distance } vom Heimatgebiet der Karte entfernt, in dem { $share } ihrer verorteten Zahlungen in Läden liegen
    .short = { $distance } vom Heimatgebiet der Karte
habit-merchant-new =
    .clause = diese Karte hat { $days ->
        [one] am Tag
       *[other] in den { $days } Tagen
     } davor hier nicht bezahlt
    .short = ein für die Karte neuer Händler
habit-merchant =
    .clause = diese Karte hat hier schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } bezahlt
    .short = { $payments ->
        [one] 1 frühere Zahlung
       *[other] { $payments } frühere Zahlungen
     } hier
habit-merchant-largest =
    .clause = diese Karte hat hier schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } bezahlt, höchstens { $largest }
    .short = { $payments ->
        [one] 1 frühere Zahlung
       *[other] { $payments } frühere Zahlungen
     } hier von höchstens { $largest }
device-new =
    .clause = diese Karte hat dieses Gerät { $days ->
        [one] am Tag
       *[other] in den { $days } Tagen
     } davor nicht verwendet
    .short = ein für die Karte neues Gerät
device-known =
    .clause = diese Karte hat dieses Gerät seit { $first } { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } verwendet
    .short = ein schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } verwendetes Gerät
device-shared =
    .clause = { $cards ->
        [one] 1 andere Karte hat
       *[other] { $cards } andere Karten haben
     } dieses Gerät { $days ->
        [one] am Tag
       *[other] in den { $days } Tagen
     } davor verwendet
    .short = ein Gerät von { $cards ->
        [one] 1 anderen Karte
       *[other] { $cards } anderen Karten
     }
merchant-history =
    .clause = dieser Händler hatte { $days ->
        [one] am Tag
       *[other] in den { $days } Tagen
     } davor { $payments ->
        [one] 1 Zahlung
       *[other] { $payments } Zahlungen
     } von { $cards ->
        [one] 1 Karte
       *[other] { $cards } Karten
     }; { $frauds ->
        [0] kein Betrug wurde gemeldet
        [one] 1 Betrugsfall wurde gemeldet
       *[other] { $frauds } Betrugsfälle mit { $cards_with_fraud ->
            [one] 1 Karte
           *[other] { $cards_with_fraud } Karten
         } wurden gemeldet
     }
    .short = { $frauds ->
        [0] kein gemeldeter Betrug bei diesem Händler
        [one] 1 gemeldeter Betrugsfall bei diesem Händler
       *[other] { $frauds } gemeldete Betrugsfälle bei diesem Händler
     }

## Ähnliche Fälle

cases-none =
    .clause = vor diesem Alarm wurde kein ähnlicher Fall abgeschlossen
    .short = kein ähnlicher abgeschlossener Fall
cases =
    .clause = von den { $cases } ähnlichsten abgeschlossenen Fällen { $frauds ->
        [one] war 1
       *[other] waren { $frauds }
     } Betrug und { $legitimate } nicht
    .short = { $frauds } von { $cases } ähnlichen Fällen mit Betrug
cases-contradict =
    .clause = die ähnlichen Fälle widersprechen dem Score: { $frauds } von { $cases } waren Betrug, das Modell gibt { $probability } an
    .short = ähnliche Fälle, die dem Score widersprechen
case =
    .clause = ein am { $closed } UTC abgeschlossener Fall, zu { $similarity } ähnlich, war { $outcome }
    .short = ein Fall: { $outcome }
case-shared =
    .clause = ein am { $closed } UTC abgeschlossener Fall, zu { $similarity } ähnlich und ebenfalls von „{ $theme }“ geprägt, war { $outcome }
    .short = ein Fall, ebenfalls von „{ $theme }“ geprägt: { $outcome }
difference = { $label } { $there } dort, { $here } hier
typology =
    .clause = { $support } der { $cases } nächsten Fälle waren Betrug der Art „{ $typology }“
    .short = die wahrscheinliche Art „{ $typology }“

## Was eine Untersuchung findet

found-payment =
    .clause = { $ago } davor bezahlte die Karte { $amount } { $channel } (Land: { $country })
    .short = { $amount } { $channel }, { $ago } davor
found-payment-here =
    .clause = { $ago } davor bezahlte die Karte { $amount } { $channel } (Land: { $country }) bei diesem Händler
    .short = { $amount } bei diesem Händler, { $ago } davor
found-alerts =
    .clause = { this-subject } hatte { $alerts ->
        [one] 1 weiteren Alarm
       *[other] { $alerts } weitere Alarme
     }: { $frauds } Betrug, { $legitimate } kein Betrug, { $open } nicht abgeschlossen
    .short = { $alerts ->
        [one] 1 weiterer Alarm
       *[other] { $alerts } weitere Alarme
     } { of-subject }
found-linked =
    .clause = { $cards ->
        [one] 1 andere Karte hatte
       *[other] { $cards } andere Karten hatten
     } Alarme bei diesem Händler, davon { $frauds } mit Betrug
    .short = { $cards ->
        [one] 1 andere Karte
       *[other] { $cards } andere Karten
     } mit Alarmen hier
found-rule =
    .clause = { $text }
    .short = die Definition der Regel

## Die Konsole

ui-fraud-key = Betrug
ui-legitimate-key = kein Betrug
ui-escalate-key = weitergeben
ui-queue = Warteschlange
ui-outcome = Ergebnis
ui-probability = Wahrscheinlichkeit
ui-expected-loss = Erwarteter Verlust
ui-reasons = Gründe nach Themen
ui-without = ohne das Thema { $share }
ui-nothing-telling = nichts, was Betrug von redlichen Zahlungen trennt
ui-on-its-way = Die Erklärung ist unterwegs.
ui-reasons-hint = Punkte sind Log-Odds: Rot spricht für Betrug, Blau dagegen. „Ohne das Thema“ ist die Wahrscheinlichkeit, wenn das Thema nichts aussagte. Anteile beziehen sich auf die Trainingsdaten des Modells.
ui-habits = Gewohnheiten neben dieser Zahlung
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
ui-higher-than = { $amount }: höher als { $rank }
ui-no-amount = keine frühere Zahlung in dieser Währung
ui-habit-hours = 0–6 Uhr { $a }, 6–12 Uhr { $b }, 12–18 Uhr { $c }, 18–24 Uhr { $d }
ui-habit-online = { $share } online
ui-habit-home = { $share } im Umkreis von { $near } um das Heimatgebiet
ui-from-home = { $distance } von dort
ui-device-used = { $payments ->
    [one] einmal
   *[other] { $payments }-mal
 } seit { $first }
ui-more-devices = { $n } weitere
ui-device-new = von dieser Karte noch nicht verwendet
ui-device-shared = von { $cards ->
    [one] 1 anderen Karte
   *[other] { $cards } anderen Karten
 } verwendet
ui-merchant-history = { $payments ->
    [one] 1 Zahlung
   *[other] { $payments } Zahlungen
 } von { $cards ->
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
ui-verdict-given = Befund: { $finding }, von { $analyst }, { $when } UTC. Ein neuer Befund ersetzt ihn.
ui-likely-typology = Wahrscheinliche Art: { $typology } ({ $support } der { $cases } nächsten abgeschlossenen Fälle)
ui-typology-if-fraud = Art, falls Betrug
ui-note = Notiz
ui-in-words = In Worten
ui-written-by = Verfasst von { $names }. Jeder Satz besteht aus geprüften Tatsachen; { $replaced } von { $checked } vorgeschlagenen Sätzen wurden ersetzt.
ui-why = Warum
ui-cases = Ähnliche abgeschlossene Fälle
ui-no-cases = Vor diesem Alarm wurde kein ähnlicher Fall abgeschlossen.
ui-closed = abgeschlossen { $when }
ui-shared = ebenfalls { $themes }
ui-no-difference = kein deutlicher Unterschied
ui-investigation = Untersuchung
ui-investigate = Das Sprachmodell nachsehen lassen
ui-investigate-hint = Es liest Zahlungen und Alarme dieser Karte und dieses Händlers und ähnliche Fälle, nur lesend. Es ordnet geprüfte Tatsachen an und entscheidet nichts.
ui-under-way = Läuft seit { $when } UTC …
ui-broken-down = Die von { $by } angeforderte Untersuchung ({ $when } UTC) ist abgebrochen: Das Protokoll der Konsole sagt, warum.
ui-nothing-passed = Nichts von dem, was es schrieb, bestand die Prüfung.
ui-transcript = Mitschrift
ui-others = Weitere Alarme dieser Karte, dieses Geräts und dieses Händlers
ui-same-card = gleiche Karte
ui-same-device = gleiches Gerät
ui-same-merchant = gleicher Händler
ui-open = offen
ui-none = Keine.
ui-facts = Alle Tatsachen
ui-decline = abgelehnt
ui-review = Prüfung
ui-approve = genehmigt
ui-finding-fraud = Betrug
ui-finding-legitimate = kein Betrug
ui-finding-escalate = weitergeben
ui-merchant-column = Händler
ui-top-reason = Stärkster Grund
ui-open-alerts = Offene Alarme
ui-counts = { $open } offen · { $fraud } Betrug · { $legitimate } kein Betrug · { $escalated } weitergegeben
ui-card = Karte
ui-previous = zurück
ui-next = weiter
ui-order-hint = Geordnet nach erwartetem Verlust: Betrugswahrscheinlichkeit mal Betrag.
ui-empty-queue = Keine offenen Alarme. Neue erscheinen hier von selbst.
ui-move = bewegen
ui-open-alert = öffnen
ui-score-picture = Beiträge zum Score in Log-Odds
ui-amounts-picture = Beträge der letzten Zahlungen der Karte in { $currency }, nach der Zeit vor dieser
ui-this = diese Zahlung
ui-before-this = { $ago } davor
rarity-percent = { $share }
rarity-one-in = 1 von { $n }
rarity-none = keine
ui-honest = redlich
ui-frauds = Betrug
ui-points = Punkte
ui-rarity-hint = Wie viele der redlichen Zahlungen und der Betrugsfälle in den Trainingsdaten einen mindestens so extremen Wert haben
ui-higher-than-all = { $amount }: höher als alle
