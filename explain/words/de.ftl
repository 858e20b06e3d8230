# Deutsch. Aufbau und Namen wie in en.ftl.

## Wovon eine Tatsache handelt

subject-word = { $subject ->
    [card] Karte
    [merchant] Händler
    [device] Gerät
   *[transaction] Zahlung
 }
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

## Zeitspannen: $window_n und $window_unit (window steht im Dativ); before-days mit $days

window-note = { " " }(endet { $delay } vor dieser Zahlung)
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
 }{ $window_note }
window-before = { $window_unit ->
    [day] { $window_n ->
        [one] in den 24 Stunden davor
       *[other] in den { $window_n } Tagen davor
     }
    [hour] { $window_n ->
        [one] in der Stunde davor
       *[other] in den { $window_n } Stunden davor
     }
    [minute] { $window_n ->
        [one] in der Minute davor
       *[other] in den { $window_n } Minuten davor
     }
   *[second] { $window_n ->
        [one] in der Sekunde davor
       *[other] in den { $window_n } Sekunden davor
     }
 }{ $window_note }
before-days = { $days ->
    [one] in den 24 Stunden davor
   *[other] in den { $days } Tagen davor
 }

## Ein Wert neben dem Üblichen und neben legitimen und betrügerischen Zahlungen

with-usual = { $words }, üblicherweise { $usual }
with-label = { $label } ({ subject-word }): { $value }
honest-percent = { $share } der legitimen Zahlungen
honest-one-in = 1 von { $n } legitimen Zahlungen
honest-none = keine der legitimen Zahlungen in der Stichprobe
fraud-percent = { $share } der Betrugsfälle
fraud-one-in = 1 von { $n } Betrugsfällen
fraud-none = keine der betrügerischen Zahlungen in der Stichprobe
contrast-high = einen mindestens so hohen Wert haben { $honest } und { $fraud }
contrast-low = einen höchstens so hohen Wert haben { $honest } und { $fraud }
contrast-flag = das gilt für { $honest } und { $fraud }
contrast-late = um diese Uhrzeit oder später liegen { $honest } und { $fraud }
contrast-early = um diese Uhrzeit oder früher liegen { $honest } und { $fraud }
contrast-late-in-week = an diesem Wochentag oder später in der Woche liegen { $honest } und { $fraud }
contrast-early-in-week = an diesem Wochentag oder früher in der Woche liegen { $honest } und { $fraud }
contrast-long = eine mindestens so lange Zeitspanne haben { $honest } und { $fraud }
contrast-recent = eine höchstens so lange Zeitspanne haben { $honest } und { $fraud }
yes = ja
no = nein
unknown = unbekannt

## Sätze

capital-after-colon = yes
opening-strongest-for-fraud-theme = am stärksten für Betrug spricht „{ $theme }“: { $rest }
opening-strongest-against-fraud-theme = am stärksten gegen Betrug spricht „{ $theme }“: { $rest }
opening-also = außerdem: { $rest }
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
part-what_happened = Was geschehen ist
part-why_unusual = Warum es ungewöhnlich ist
part-similar_cases = Ähnliche Fälle
part-speaks_against = Was gegen Betrug spricht
part-next_step = Nächster Schritt

## Themen

code-theme-amount = Betrag und Gewohnheit der Karte
code-theme-pace = Tempo der Zahlungen
code-theme-small-amounts = Sehr kleine Beträge
code-theme-place = Ort und Reise
code-theme-device = Gerät und Zahlungsweg
code-theme-time = Tageszeit
code-theme-merchant-kind = Art des Händlers
code-theme-reported-fraud = Betrugsmeldungen
code-theme-merchant-activity = Aktivität und Preise des Händlers

## Kennwörter

code-online = online
code-card-present = vor Ort
code-unknown = auf unbekanntem Weg
code-no-country = unbekannt
code-fraud = Betrug
code-legitimate = legitim
code-field-mcc = die Branche
code-field-country = das Land
code-field-channel = der Zahlungsweg
code-field-device = das Gerät
code-card-testing = Kartentest
code-stolen-card = gestohlene Karte
code-compromised-terminal = manipuliertes Terminal
code-account-takeover = Kontoübernahme
code-impossible-travel = unmögliche Reise
code-slow-skimming = schleichendes Abschöpfen
code-friendly-fraud = bestrittene eigene Zahlung
code-other = andere Art

## Die Zahlung und ihr Score

payment =
    .clause = { $amount } wurden am { $when } UTC, { $channel } bezahlt (Land: { $country })
    .short = { $amount } { $channel } am { $when } UTC
payment-first =
    .clause = in den Wochen davor gab es keine Zahlung dieser Karte
    .short = keine Zahlung in den Wochen davor
payment-recent =
    .clause = { $recent ->
        [one] die letzte Zahlung der Karte lag { $hour ->
            [0] nicht in der Stunde davor
           *[other] in der Stunde davor
         }
       *[other] { $hour ->
            [0] keine der letzten { $recent } Zahlungen der Karte lag
            [one] 1 der letzten { $recent } Zahlungen der Karte lag
           *[other] { $hour } der letzten { $recent } Zahlungen der Karte lagen
         } in der Stunde davor
     }
    .short = { $hour } von { $recent ->
        [one] 1 Zahlung
       *[other] { $recent } Zahlungen
     } in der Stunde davor
score =
    .clause = die Betrugswahrscheinlichkeit beträgt nach dem Modell { $probability }: Von 100 so bewerteten Zahlungen { $hundred ->
        [0] ist weniger als 1
        [one] ist etwa 1
       *[other] sind etwa { $hundred }
     } Betrug (Prüfung ab { $review })
    .short = eine Betrugswahrscheinlichkeit von { $probability }
score-few =
    .clause = die Betrugswahrscheinlichkeit beträgt nach dem Modell { $probability }, gestützt auf wenige vergleichbare Zahlungen: Zwischen { $low } und { $high } von 100 sind Betrug (Prüfung ab { $review })
    .short = eine Betrugswahrscheinlichkeit von { $probability } aus wenigen vergleichbaren Zahlungen
score-elsewhere =
    .clause = ein anderes Modell gab eine Betrugswahrscheinlichkeit von { $probability } an
    .short = eine Betrugswahrscheinlichkeit von { $probability } nach einem anderen Modell
unscored =
    .clause = kein Modell konnte diese Zahlung bewerten
    .short = kein Score
doubt-late =
    .clause = der Zeitpunkt dieser Zahlung liegt weiter zurück, als der Datenstrom zulässt; daher ist nur teilweise bekannt, was um ihn herum geschah
    .short = ein zu weit zurückliegender Zeitpunkt
doubt-reused =
    .clause = die Kennung dieser Zahlung wurde mit der Karte schon für einen anderen Kauf verwendet
    .short = eine wiederverwendete Zahlungskennung
doubt-currency =
    .clause = für { $currency } gibt es keinen Wechselkurs, daher gingen Beträge nicht in den Score ein
    .short = kein Wechselkurs für { $currency }
other-bundle =
    .clause = dieser Alarm stammt von Modell { $raised }, hier läuft aber Modell { $here }, daher sind die Gründe hinter dem Score nicht bekannt
    .short = ein Score eines anderen Modells
novel =
    .clause = die Zahlung als Ganzes gehört, gemessen an den Trainingsdaten, zu den ungewöhnlichsten
    .short = eine als Ganzes ungewöhnliche Zahlung
rule =
    .clause = die Regel { $rule } trifft auf diese Zahlung zu
    .short = die Regel { $rule }
missing =
    .clause = { $field } wurde bei dieser Zahlung nicht angegeben
    .short = eine fehlende Angabe ({ $field })
theme =
    .clause = „{ $theme }“ { $side ->
        [fraud] erhöht den Score
        [legitimate] senkt den Score
       *[neither] verändert den Score nicht
     }; ohne dieses Thema läge die Wahrscheinlichkeit bei { $without }
    .short = „{ $theme }“
balance =
    .clause = von den Themen hinter dem Score { $fraud ->
        [0] spricht keines
        [one] spricht 1
       *[other] sprechen { $fraud }
     } für Betrug und { $against ->
        [0] keines spricht
        [one] 1 spricht
       *[other] { $against } sprechen
     } dagegen
    .short = { $fraud ->
        [0] kein Thema
        [one] 1 Thema
       *[other] { $fraud } Themen
     } für Betrug und { $against ->
        [0] keines
       *[other] { $against }
     } dagegen
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
       *[no] unter der Woche
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
       *[no] die Karte wurde beim Händler vorgelegt
     }
    .label = online
feature-count =
    .clause = { at-subject } gab es innerhalb von { window } { $value ->
        [0] keine Zahlung
        [one] 1 Zahlung
       *[other] { $value } Zahlungen
     }
    .label = Zahlungen innerhalb von { window }
feature-amount-sum =
    .clause = { $subject ->
        [merchant] dieser Händler nahm innerhalb von { window } { $value } ein
       *[card] mit dieser Karte wurden innerhalb von { window } { $value } ausgegeben
     }
    .label = Summe innerhalb von { window }
feature-amount-mean =
    .clause = der mittlere Betrag { of-subject } innerhalb von { window } ist { $value }
    .label = mittlerer Betrag innerhalb von { window }
feature-amount-ratio =
    .clause = der Betrag ist das { $value }-Fache des mittleren Betrags { of-subject } innerhalb von { window }
    .label = Betrag im Verhältnis zum Mittel aus { window }
feature-low-count =
    .clause = { at-subject } gab es innerhalb von { window } { $value ->
        [0] keine sehr kleine Zahlung
        [one] 1 sehr kleine Zahlung
       *[other] { $value } sehr kleine Zahlungen
     }
    .label = sehr kleine Zahlungen innerhalb von { window }
feature-low-share =
    .clause = { $value } der Zahlungen { at-subject } innerhalb von { window } waren sehr klein
    .label = Anteil sehr kleiner Zahlungen innerhalb von { window }
feature-amount-max =
    .clause = der höchste Betrag { of-subject } innerhalb von { window } ist { $value }
    .label = höchster Betrag innerhalb von { window }
feature-amount-to-max =
    .clause = der Betrag ist das { $value }-Fache des höchsten Betrags { of-subject } { window-before }
    .label = Betrag im Verhältnis zum höchsten aus { window }
feature-amount-zscore =
    .clause = der Betrag liegt { $value } geglättete Standardabweichungen vom mittleren Betrag { of-subject } innerhalb von { window } entfernt
    .label = Abweichung des Betrags vom Mittel aus { window }
feature-distinct-merchants =
    .clause = { at-subject } wurde innerhalb von { window } bei { $value ->
        [0] keinem Händler
        [one] 1 Händler
       *[other] { $value } verschiedenen Händlern
     } bezahlt
    .label = Händler innerhalb von { window }
feature-distinct-countries =
    .clause = { this-subject } wurde innerhalb von { window } in { $value ->
        [0] keinem Land
        [one] 1 Land
       *[other] { $value } Ländern
     } verwendet
    .label = Länder innerhalb von { window }
feature-new-merchant =
    .clause = { at-subject } war { window-before } bei diesem Händler { $value ->
        [yes] nicht
       *[no] schon
     } bezahlt worden
    .label = neuer Händler
feature-new-country =
    .clause = { this-subject } war { window-before } in diesem Land { $value ->
        [yes] nicht
       *[no] schon
     } verwendet worden
    .label = neues Land
feature-category-share =
    .clause = { $value } der Zahlungen { at-subject } { window-before } gehörten zu dieser Branche
    .label = Anteil dieser Branche
feature-night-share =
    .clause = { $value } der Zahlungen { at-subject } { window-before } erfolgten nachts
    .label = Anteil nächtlicher Zahlungen
feature-online-share =
    .clause = { $value } der Zahlungen { at-subject } { window-before } erfolgten online
    .label = Anteil der Onlinezahlungen
feature-burst =
    .clause = die Rate der Zahlungen { of-subject } innerhalb von { window } ist, mit dieser Zahlung, das { $value }-Fache ihres Durchschnitts
    .label = Rate der Zahlungen innerhalb von { window } im Verhältnis zum Durchschnitt
feature-fraud-count =
    .clause = { $value ->
        [0] keine Zahlung { at-subject } innerhalb von { window } ist
        [one] 1 Zahlung { at-subject } innerhalb von { window } ist
       *[other] { $value } Zahlungen { at-subject } innerhalb von { window } sind
     } als Betrug bekannt
    .label = bekannte Betrugsfälle innerhalb von { window }
feature-fraud-share =
    .clause = { $value } der Zahlungen { at-subject } innerhalb von { window } sind als Betrug bekannt
    .label = Anteil bekannter Betrugsfälle innerhalb von { window }
feature-max-to-normal =
    .clause = der höchste Betrag { of-subject } { window-before } ist das { $value }-Fache des geschätzten normalen
    .label = höchster Betrag aus { window } im Verhältnis zum normalen
feature-unusual-count =
    .clause = { at-subject } gab es { window-before } { $value ->
        [0] keine Zahlung mit ungewöhnlichem Betrag
        [one] 1 Zahlung mit ungewöhnlichem Betrag
       *[other] { $value } Zahlungen mit ungewöhnlichen Beträgen
     }
    .label = ungewöhnliche Beträge innerhalb von { window }
feature-first-unusual =
    .clause = der erste ungewöhnliche Betrag { of-subject } { window-before } liegt { $value } Tage zurück
    .label = Tage seit dem ersten ungewöhnlichen Betrag innerhalb von { window }
feature-last-unusual =
    .clause = der letzte ungewöhnliche Betrag { of-subject } { window-before } liegt { $value } Tage zurück
    .label = Tage seit dem letzten ungewöhnlichen Betrag innerhalb von { window }
feature-first-fraud =
    .clause = der erste bekannte Betrugsfall { at-subject } innerhalb von { window } liegt { $value } Tage zurück
    .label = Tage seit dem ersten bekannten Betrugsfall innerhalb von { window }
feature-last-fraud =
    .clause = der letzte bekannte Betrugsfall { at-subject } innerhalb von { window } liegt { $value } Tage zurück
    .label = Tage seit dem letzten bekannten Betrugsfall innerhalb von { window }
feature-seconds-since-last =
    .clause = die Zahlung vor dieser lag { $value } zurück
    .label = Zeit seit der letzten Zahlung
feature-distance =
    .clause = der Ort liegt { $value } vom letzten Ort entfernt, an dem die Karte vorlag
    .label = Entfernung vom letzten Ort, an dem die Karte vorlag
feature-speed =
    .clause = der Weg hierher vom letzten Ort, an dem die Karte vorlag, erfordert eine Geschwindigkeit von { $value }
    .label = Reisegeschwindigkeit
feature-new-device =
    .clause = { this-subject } war { $value ->
        [yes] zuletzt nicht
       *[no] zuletzt
     } mit diesem Gerät verwendet worden
    .label = neues Gerät
feature-amount-to-normal =
    .clause = der Betrag ist das { $value }-Fache des geschätzten normalen Betrags { of-subject }
    .label = Betrag im Verhältnis zum normalen
feature-recent-to-normal =
    .clause = das Mittel der letzten drei Beträge { of-subject } ist das { $value }-Fache des geschätzten normalen Betrags
    .label = letzte Beträge im Verhältnis zum normalen
feature-fraud-reports =
    .clause = { at-subject } { $value ->
        [0] wurde innerhalb von { window } kein Betrugsfall
        [one] wurde innerhalb von { window } 1 Betrugsfall
       *[other] wurden innerhalb von { window } { $value } Betrugsfälle
     } gemeldet
    .label = gemeldete Betrugsfälle innerhalb von { window }
feature-fraud-report-share =
    .clause = die geglättete Rate gemeldeter Betrugsfälle { at-subject } innerhalb von { window } ist { $value }
    .label = Rate gemeldeter Betrugsfälle innerhalb von { window }
feature-usual-fraud-count =
    .clause = { $value ->
        [0] keine Zahlung { at-subject } innerhalb von { window } ist
        [one] 1 Zahlung { at-subject } innerhalb von { window } ist
       *[other] { $value } Zahlungen { at-subject } innerhalb von { window } sind
     } trotz eines für die jeweilige Karte üblichen Betrags als Betrug bekannt
    .label = bekannte Betrugsfälle mit üblichem Betrag innerhalb von { window }
feature-usual-fraud-share =
    .clause = { $value } der Zahlungen { at-subject } innerhalb von { window } sind trotz eines für die jeweilige Karte üblichen Betrags als Betrug bekannt
    .label = Anteil bekannter Betrugsfälle mit üblichem Betrag innerhalb von { window }
feature-first-usual-fraud =
    .clause = der erste bekannte Betrugsfall { at-subject } innerhalb von { window } mit einem für die jeweilige Karte üblichen Betrag liegt { $value } Tage zurück
    .label = Tage seit dem ersten Betrugsfall mit üblichem Betrag innerhalb von { window }
feature-last-usual-fraud =
    .clause = der letzte bekannte Betrugsfall { at-subject } innerhalb von { window } mit einem für die jeweilige Karte üblichen Betrag liegt { $value } Tage zurück
    .label = Tage seit dem letzten Betrugsfall mit üblichem Betrag innerhalb von { window }
feature-last-legitimate =
    .clause = die letzte nicht als Betrug bekannte Zahlung { at-subject } innerhalb von { window } liegt { $value } Tage zurück
    .label = Tage seit der letzten nicht als Betrug bekannten Zahlung innerhalb von { window }

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
    .clause = das Archiv enthält keine Zahlung dieser Karte { before-days }
    .short = keine frühere Zahlung dieser Karte
habit-amount =
    .clause = von { $payments ->
        [one] 1 Zahlung
       *[other] { $payments } Zahlungen
     } dieser Karte liegt die Hälfte bei höchstens { $median } und liegen 95 % bei höchstens { $high }; dieser Betrag ist höher als bei { $rank } von ihnen
    .short = übliche Beträge bis { $median } (Hälfte) und { $high } (95 %)
habit-hours =
    .clause = { $share } der Zahlungen dieser Karte liegen wie diese zwischen { $begin } und { $end } UTC
    .short = { $share } der Zahlungen zwischen { $begin } und { $end } UTC
habit-channel =
    .clause = { $share } der Zahlungen dieser Karte erfolgen wie diese { $channel }
    .short = { $share } der Zahlungen { $channel }
habit-category =
    .clause = { $share } der Zahlungen dieser Karte gehören wie diese zur Branche „{ $category }“
    .short = { $share } der Zahlungen in der Branche „{ $category }“
habit-place =
    .clause = diese Zahlung erfolgte { $distance } vom Heimatgebiet der Karte entfernt (dort erfolgen { $share } ihrer Zahlungen in Geschäften mit bekanntem Ort)
    .short = { $distance } vom Heimatgebiet der Karte
habit-merchant-new =
    .clause = mit dieser Karte wurde { before-days } hier nicht bezahlt
    .short = ein für die Karte neuer Händler
habit-merchant =
    .clause = mit dieser Karte wurde hier schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } bezahlt
    .short = { $payments ->
        [one] 1 frühere Zahlung
       *[other] { $payments } frühere Zahlungen
     } hier
habit-merchant-largest =
    .clause = mit dieser Karte wurde hier schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } bezahlt, höchstens { $largest }
    .short = { $payments ->
        [one] 1 frühere Zahlung
       *[other] { $payments } frühere Zahlungen
     } hier von höchstens { $largest }
device-new =
    .clause = dieses Gerät wurde { before-days } mit dieser Karte nicht verwendet
    .short = ein für die Karte neues Gerät
device-known =
    .clause = dieses Gerät wurde mit dieser Karte vom { $first } bis zum { $last } { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } verwendet
    .short = ein schon { $payments ->
        [one] einmal
       *[other] { $payments }-mal
     } verwendetes Gerät
device-shared =
    .clause = dieses Gerät wurde { before-days } mit { $cards ->
        [one] 1 anderen Karte
       *[other] { $cards } anderen Karten
     } verwendet
    .short = ein mit { $cards ->
        [one] 1 anderen Karte
       *[other] { $cards } anderen Karten
     } verwendetes Gerät
merchant-history =
    .clause = bei diesem Händler gab es { before-days } { $payments ->
        [one] 1 Zahlung
       *[other] { $payments } Zahlungen
     } mit { $cards ->
        [one] 1 Karte
       *[other] { $cards } Karten
     }; { $frauds ->
        [0] es wurde kein Betrug gemeldet
        [one] es wurde 1 Betrugsfall gemeldet
       *[other] es wurden { $frauds } Betrugsfälle mit { $cards_with_fraud ->
            [one] 1 Karte
           *[other] { $cards_with_fraud } Karten
         } gemeldet
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
cases-not-searched =
    .clause = nach ähnlichen Fällen wurde nicht gesucht, weil hier kein Modell die Zahlung bewertet hat
    .short = keine Suche nach ähnlichen Fällen
cases =
    .clause = von { $cases ->
        [one] dem 1 ähnlichsten abgeschlossenen Fall
       *[other] den { $cases } ähnlichsten abgeschlossenen Fällen
     } { $frauds ->
        [0] war keiner
        [one] war 1
       *[other] waren { $frauds }
     } Betrug und { $legitimate ->
        [0] keiner war
        [one] 1 war
       *[other] { $legitimate } waren
     } legitim
    .short = { $frauds } Betrugsfälle und { $legitimate } legitime Zahlungen unter den { $cases } ähnlichsten Fällen
cases-contradict =
    .clause = die ähnlichen Fälle widersprechen dem Score: { $frauds ->
        [0] Keiner von { $cases } war
        [one] 1 von { $cases } war
       *[other] { $frauds } von { $cases } waren
     } Betrug, das Modell gibt { $probability } an
    .short = ähnliche Fälle im Widerspruch zum Score
case =
    .clause = ein zu { $similarity } ähnlicher Fall, abgeschlossen am { $closed } UTC, war { $outcome }
    .short = ein Fall mit dem Ergebnis „{ $outcome }“
case-shared =
    .clause = ein zu { $similarity } ähnlicher und ebenfalls von „{ $theme }“ geprägter Fall, abgeschlossen am { $closed } UTC, war { $outcome }
    .short = ein ebenfalls von „{ $theme }“ geprägter Fall mit dem Ergebnis „{ $outcome }“
difference = { $label }: dort { $there }, hier { $here }
typology =
    .clause = { $support } der { $cases } ähnlichsten Fälle { $support ->
        [one] war
       *[other] waren
     } Betrug der Art „{ $typology }“
    .short = die wahrscheinliche Art „{ $typology }“
typology-fitted =
    .clause = falls dies Betrug ist, handelt es sich mit einer Wahrscheinlichkeit von { $probability } um die Art „{ $typology }“ (nach einem Klassifikator, der bei { $right } von { $cases ->
        [one] 1 abgeschlossenen Betrugsfall
       *[other] { $cases } abgeschlossenen Betrugsfällen
     } richtig lag)
    .short = die wahrscheinliche Art „{ $typology }“ ({ $probability })

## Was eine Untersuchung findet

found-payment =
    .clause = { $ago } davor wurden mit der Karte { $amount } { $channel } bezahlt (Land: { $country })
    .short = { $amount } { $channel }, { $ago } davor
found-payment-here =
    .clause = { $ago } davor wurden mit der Karte { $amount } { $channel } bei diesem Händler bezahlt (Land: { $country })
    .short = { $amount } bei diesem Händler, { $ago } davor
found-alerts =
    .clause = zu { $subject ->
        [merchant] diesem Händler
        [device] diesem Gerät
       *[card] dieser Karte
     } gab es { $alerts ->
        [one] 1 weiteren Alarm
       *[other] { $alerts } weitere Alarme
     }: { $frauds } als Betrug erkannt, { $legitimate } als legitim, { $open } nicht abgeschlossen
    .short = { $alerts ->
        [one] 1 weiterer Alarm
       *[other] { $alerts } weitere Alarme
     } zu { $subject ->
        [merchant] diesem Händler
        [device] diesem Gerät
       *[card] dieser Karte
     }
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


rarity-percent = { $share }
rarity-one-in = 1 von { $n }
rarity-none = keine
