"""A site of Wagtail with SQLite in a folder, whose settings for caches come from the test.

wagtail_site.py FOLDER BACKENDS install            makes the database
wagtail_site.py FOLDER BACKENDS serve PORT         serves it
wagtail_site.py FOLDER BACKENDS publish SLUG TITLE publishes a page, new or changed
wagtail_site.py FOLDER BACKENDS unpublish SLUG     takes it down

BACKENDS is WAGTAILFRONTENDCACHE as JSON.
"""

import json
import sys

import django
import resolve  # noqa: F401
from django.conf import settings
from django.core.management import call_command
from django.urls import include, path

folder, backends, what = sys.argv[1:4]

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    STATIC_URL="/static/",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/site.sqlite"}},
    INSTALLED_APPS=[
        "wagtail.contrib.frontend_cache",
        "wagtail.users",
        "wagtail.documents",
        "wagtail.images",
        "wagtail.admin",
        "wagtail.search",
        "wagtail",
        "modelcluster",
        "taggit",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.locmem.Loader",
                        {"wagtailcore/page.html": "<h1>{{ page.title }}</h1>"},
                    )
                ]
            },
        }
    ],
    WAGTAIL_SITE_NAME="site",
    WAGTAILADMIN_BASE_URL="http://site.test",
    WAGTAILFRONTENDCACHE=json.loads(backends),
)
django.setup()
urlpatterns = [path("", include("wagtail.urls"))]


def publish(slug, title):
    from wagtail.models import Page, Site

    site = Site.objects.get(is_default_site=True)
    page = Page.objects.filter(slug=slug).first()
    if page is None:
        page = site.root_page.add_child(instance=Page(title=title, slug=slug))
    page.title = title
    page.save_revision().publish()


def unpublish(slug):
    from wagtail.models import Page

    Page.objects.get(slug=slug).unpublish()


def install():
    from wagtail.models import Site

    call_command("migrate", verbosity=0)
    Site.objects.update(hostname="site.test", port=80)


if what == "install":
    install()
elif what == "serve":
    call_command("runserver", f"127.0.0.1:{sys.argv[4]}", use_reloader=False, skip_checks=True)
else:
    {"publish": publish, "unpublish": unpublish}[what](*sys.argv[4:])
