"""Write the binary and generated files of the demo corpus (run by hand; the results are committed).

.venv/bin/python demo/build_corpus.py
"""

from email.message import EmailMessage
from pathlib import Path

from docx import Document
from openpyxl import Workbook
from pptx import Presentation

CORPUS = Path(__file__).parents[1] / "ragassets" / "demo" / "corpus"

PAGE_LINES = 46
LINE_HEIGHT = 15

# Heading, then its paragraph.
EXPENSES = """
Spending money for the company
This policy says what Fernhill Instruments pays for and how you get your money back. If you are
unsure, ask yourself whether you would mind explaining the receipt to a colleague, and then ask
your manager. Claims are made in Cobalt under Expenses.

Receipts and deadlines
Photograph every receipt on the day you get it. Claims have to be handed in within 60 days;
later ones need the signature of the finance director. Below 15 euros a card slip is enough.
Money is paid back with the next salary if the claim was approved by the fifteenth of the month.

Meals
On a trip with at least one night away you may spend up to 48 euros a day on meals without
asking. On a day trip of more than eight hours it is 18 euros. When you eat with customers the
limit is 75 euros for each person, and the claim names everybody at the table. Alcohol is paid
for only at dinners with customers, and never more than a fifth of the bill.

Trains, flights and cars
Take the train when it needs less than six hours; you may travel first class when the ride is
longer than three. Flights are booked in economy class through the travel desk. With your own
car you get 38 cents a kilometre, up to 600 kilometres a trip. Parking is paid, fines are not.

Hotels
Up to 140 euros a night including breakfast, or 190 euros in London, Paris, Zurich and Oslo.
Book a rate that can be cancelled. If you stay with friends instead, you may bring them a
present worth up to 40 euros.

Equipment and software
Anything above 250 euros is ordered through purchasing, not claimed. Software subscriptions need
the approval of the security team first, whatever they cost, because somebody has to check where
the data goes. Books for work are always fine and need no approval up to 80 euros each.
"""

LIMITS = [
    ("What", "Limit", "Who approves above it"),
    ("Meals, overnight trip", "48 euros a day", "manager"),
    ("Dinner with customers", "75 euros a person", "head of sales"),
    ("Hotel", "140 euros a night", "manager"),
    ("Own car", "38 cents a kilometre", "travel desk"),
    ("Equipment", "250 euros", "purchasing"),
]

SLIDES = [
    (
        "How the measurement platform works",
        ["A walk for new engineers, twenty minutes", "Data Platform team, autumn 2026"],
    ),
    (
        "From the air to the gateway",
        [
            "A Skylark sensor samples every second and sends one averaged value a minute",
            "A Marten gateway collects up to 120 sensors and adds the time",
            "Without internet the gateway buffers 72 hours",
        ],
    ),
    (
        "From the gateway to the database",
        [
            "The entry point checks the token and answers within 50 milliseconds",
            "A broker holds eight hours of messages, in twelve partitions by customer",
            "Six writers store batches of 5,000 values in the time series database",
            "A value is visible 20 seconds after it was measured, in the median",
        ],
    ),
    (
        "Why we chose a broker and not direct writes",
        [
            "The database may be restarted without losing a single value",
            "Bursts after a network outage are ten times the normal rate",
            "The price is one more system to run: about half a day a month",
        ],
    ),
    (
        "Numbers worth knowing",
        [
            "41,000 sensors and 1,900 gateways in 23 countries",
            "700 values a second on average, 9,000 in the busiest minute of 2026",
            "99.95 percent availability promised, 99.98 reached last year",
        ],
    ),
]

PRICES = [
    ("Article", "Name", "Price in euros", "Discount from 10 pieces", "Delivery time"),
    ("FH-100", "Skylark One sensor", 389, "8 percent", "5 working days"),
    ("FH-110", "Skylark Duo sensor", 649, "8 percent", "10 working days"),
    ("FH-120", "Skylark Indoor sensor", 219, "12 percent", "5 working days"),
    ("FH-200", "Marten gateway", 820, "5 percent", "5 working days"),
    ("FH-300", "Heron weather station", 1140, "5 percent", "15 working days"),
    ("FH-910", "Calibrated gas cartridge", 95, "10 percent", "5 working days"),
    ("FH-920", "Battery pack", 34, "10 percent", "2 working days"),
]
CONTRACTS = [
    ("Contract", "Price a year and gateway", "Answer", "Replacement device"),
    ("Bronze", "free", "3 working days", "after repair"),
    ("Silver", 240, "1 working day", "within 5 working days"),
    ("Gold", 690, "1 hour, around the clock", "within 24 hours"),
]

DATASHEET = """Skylark Duo: data sheet

The Skylark Duo measures fine particles and nitrogen dioxide at the roadside. It is made for
cities that want many measuring points at a tenth of the price of a reference station, and
for consultants who need results within a day.

Measuring

Fine particles (PM2.5): optical particle counter, 0 to 1,000 micrograms per cubic metre,
uncertainty 10 percent or 3 micrograms, whichever is larger.
Nitrogen dioxide: electrochemical cell, 0 to 500 parts per billion, uncertainty 15 percent,
detection limit 4 parts per billion.
Temperature: -30 to +60 degrees Celsius, uncertainty 0.3 degrees.
Relative humidity: 0 to 100 percent, uncertainty 2 percent.
Averaging time: 60 seconds in normal mode, 10 seconds in survey mode.

Housing and power

Aluminium housing, IP65, impact protection IK08. Weight 640 grams with battery. Lithium
battery pack of 19 ampere hours; 18 months in normal mode at moderate temperatures. An
external supply of 5 to 24 volts can be connected and charges nothing: the pack is not
rechargeable and must be recycled as lithium waste.

Calibration and certificates

Every cell is calibrated at five points with certified gas in our laboratory, which is
accredited under ISO 17025. The certificate is valid for twelve months. Between two
calibrations the platform compares neighbouring sensors at night, when the air is well mixed,
and warns when one of them drifts by more than 6 parts per billion.
\f
Mounting

The bracket fits poles of 40 to 180 millimetres. Two stainless steel bands are in the box.
Mount the sensor between 2.5 and 4 metres above ground with the inlet pointing down. Do not
paint the housing and do not wrap it: the shield has to breathe.

Radio

Sub-gigahertz, 868 megahertz in Europe and 915 megahertz in North America, 14 dBm. Range
800 metres in open ground. Messages are encrypted with AES-128. The device is approved
in the European Union, the United Kingdom, Norway, Switzerland, Canada and the United States.

Limits

The sensor is not a reference instrument in the sense of directive 2008/50/EC and may not be used
for court evidence. Ozone above 90 parts per billion raises the reading of nitrogen
dioxide; the platform corrects for it where an ozone value is available within five
kilometres. Strong winds above 25 metres a second can make the particle reading too low.
"""

MINUTES = """Hello everybody,

here is the short version of last week's incident for those who were asleep.

On Tuesday 10 March at 02:40 a mobile network in northern Italy came back after an outage of nine
hours. 212 gateways sent their buffers at once. That would have been fine. It was not fine because
the nightly report for the city of Bologna was running and held a lock on the measurements table, so
the writers waited and the queue grew to 55 minutes.

The engineer on call, Priya, saw that the writers were idle and restarted all six at the same
time. They fought for the same partitions, and it took until 06:50 before the last one was working
again. No measurement was lost, but 38 customers saw a gap in their dashboards for more than four
hours.

What we change:

1. Writers are restarted one at a time. The runbook says so now, and the command refuses to do it
   otherwise. Owner: Priya, done.
2. Reports read from a replica. Owner: Jonas, by 17 April.
3. The alert for the ingest queue names the lock that blocks the writers. Owner: Mei, by 30 April.

What went well: support had the status page updated after eleven minutes. Thank you, Aleksander.

The full review is in the usual place. There is cake on Thursday at four.

Ruth Adeyemi
Head of Engineering
"""


def write_expenses(path: Path) -> None:
    """Write the expense policy as a Word document with headings and a table."""
    document = Document()
    document.add_heading("Expense policy", level=0)
    for section in EXPENSES.strip().split("\n\n"):
        heading, *lines = section.splitlines()
        document.add_heading(heading, level=1)
        document.add_paragraph(" ".join(lines))
    document.add_heading("Limits at a glance", level=1)
    table = document.add_table(rows=0, cols=3)
    for row in LIMITS:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.save(str(path))


def write_slides(path: Path) -> None:
    """Write the platform tour as slides with a title and bullet points."""
    slides = Presentation()
    for title, points in SLIDES:
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text_frame.text = "\n".join(points)
    slides.save(str(path))


def write_prices(path: Path) -> None:
    """Write the price list as a workbook with two sheets."""
    book = Workbook()
    for name, rows in (("Products", PRICES), ("Support contracts", CONTRACTS)):
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.remove(book.worksheets[0])
    book.save(path)


def write_mail(path: Path) -> None:
    """Write the mail about the incident."""
    mail = EmailMessage()
    mail["From"] = "Ruth Adeyemi <ruth.adeyemi@fernhill.example>"
    mail["To"] = "everybody@fernhill.example"
    mail["Subject"] = "What happened on 10 March: the ingest incident in short"
    mail["Date"] = "Mon, 16 Mar 2026 09:12:00 +0000"
    mail["Message-ID"] = "<20260316.0912@fernhill.example>"
    mail.set_content(MINUTES)
    path.write_bytes(mail.as_bytes())


def write_pdf(path: Path, text: str) -> None:
    """Write plain text as a PDF, one page for each form feed (PDF 1.4, ISO 32000-1, section 7)."""
    pages = text.split("\f\n")
    first_page = 4
    kids = " ".join(f"{first_page + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        stream = _page_stream(page)
        content = first_page + 2 * number + 1
        objects += [
            (
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842]"
                f" /Resources << /Font << /F1 3 0 R >> >> /Contents {content} 0 R >>"
            ).encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    path.write_bytes(_assemble(objects))


def _page_stream(page: str) -> bytes:
    lines = page.splitlines()
    assert len(lines) <= PAGE_LINES, "the text runs off the page"
    shown = [f"({_escape(line)}) Tj T*" for line in lines]
    return "\n".join(["BT", "/F1 11 Tf", f"{LINE_HEIGHT} TL", "60 780 Td", *shown, "ET"]).encode(
        "cp1252"
    )


def _escape(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def _assemble(objects: list[bytes]) -> bytes:
    data = b"%PDF-1.4\n"
    offsets: list[int] = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return data + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\n"
        b"startxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table, len(objects) + 1, len(data))
    )


def main() -> None:
    """Write every generated file."""
    write_expenses(CORPUS / "policies" / "expenses.docx")
    write_slides(CORPUS / "engineering" / "platform-tour.pptx")
    write_prices(CORPUS / "products" / "price-list.xlsx")
    write_mail(CORPUS / "engineering" / "incident-2026-03-10.eml")
    sheet = CORPUS / "products" / "skylark-duo-datasheet.pdf"
    write_pdf(sheet, DATASHEET)
    # A transfer that broke off: the header is there, the pages and the cross-reference are not.
    (CORPUS / "support" / "warranty-scan.pdf").write_bytes(sheet.read_bytes()[:700])
    # Byte for byte, and nearly: what an archive folder looks like.
    leave = (CORPUS / "policies" / "leave.md").read_text(encoding="utf-8")
    for now, then in (
        ("has 27 days", "has 26 days"),
        ("to 30 days", "to 29 days"),
        ("has 20 weeks", "has 18 weeks"),
    ):
        assert leave.count(now) == 1, now
        leave = leave.replace(now, then)
    (CORPUS / "archive" / "leave-2025.md").write_text(leave, encoding="utf-8")
    returns = (CORPUS / "support" / "returns.txt").read_bytes()
    (CORPUS / "archive" / "returns-copy.txt").write_bytes(returns)


if __name__ == "__main__":
    main()
